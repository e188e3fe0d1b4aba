// Numbers as sums of 16-bit terms: a term is what the terms before it leave, rounded.
//
// Two float16 terms hold 22 bits of a number, and their three largest products are a float32 product but for
// its last bit (Ootomo and Yokota, Recovering single precision accuracy from Tensor Cores while surpassing
// the FP32 theoretical peak performance, 2022). The price is float16's range. Three bfloat16 terms hold any
// float32 number exactly, at twice as many products.
#pragma once

#include "packet.cuh"
#include "reduce.cuh"
#include "staging.cuh"

namespace ortho::cuda {

// Float16 terms are those of a number times a power of two, at first this: numbers below 4 don't overflow,
// and numbers from `least_exact` on lose no digit that float32 weights of that size have.
constexpr float half_scale = 0x1p14f;
constexpr float least_exact = 0x1p-17f;

// The power of two that makes the largest magnitude about 2^14, below float16's largest number. Zero and
// infinity are left as they are.
ORTHO_DEVICE float scale_for(float largest) {
  const auto exponent = static_cast<std::int32_t>(float_as_bits(largest) >> 23);  // with float's bias of 127
  if (exponent == 0 || exponent == 255) return 1;
  const std::int32_t wanted = 127 + 13 + 127 - exponent;
  return bits_as_float(static_cast<std::uint32_t>(wanted < 253 ? wanted : 253) << 23);
}

// Splits two neighbors; a pair of terms has the first in its low half.
template <class Half, int Terms>
ORTHO_DEVICE void split(float first, float second, std::uint32_t (&terms)[Terms]) {
  ORTHO_UNROLL
  for (int t = 0; t < Terms; ++t) {
    terms[t] = to_pair<Half>(first, second);
    if (t + 1 == Terms) break;
    first -= first_of_pair<Half>(terms[t]);
    second -= second_of_pair<Half>(terms[t]);
  }
}

template <int Count>
struct alignas(4 * Count) Words {
  std::uint32_t words[Count];
};

// An operand that is split on its way; a 16-bit number is its own only term. Its numbers come to registers
// while the chunk before is multiplied; where that takes too many, for three terms or numbers that are not
// aligned, they are awaited.
template <class S, class Half, int Terms, int Depth, class Reading,
          Arrangement arrangement = Arrangement::padded>
class SplitOperand {
  static constexpr bool is_scaled = std::is_same_v<S, float> && std::is_same_v<Half, float16>;
  static constexpr int piece = packet_numbers<S>;

 public:
  using Panel = cuda::Panel<Half, wide_tile, Depth, Reading::major, Terms, arrangement>;
  static constexpr int depth = Depth;
  static constexpr bool is_copied = false;
  static constexpr bool through_registers =
      Terms < 3 && (Reading::aligned || arrangement == Arrangement::padded);

 private:
  using Walk = RowWalk<Panel, Depth, S, piece, Reading::aligned>;

 public:
  struct Staged {
    Packet<S> pieces[through_registers ? Walk::rows_each : 1];
  };

  ORTHO_DEVICE SplitOperand(const Operand<S>& operand, std::int32_t first, std::int32_t k,
                            float scale = is_scaled ? half_scale : 1)
      : walk_(operand, first, k), scale_(scale) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged& staged, Half* panel) {
    walk_.for_pieces([&](int r, bool valid, const S* source, int) {
      if constexpr (through_registers) {
        staged.pieces[r] = read(valid, source);
      } else {
        write_piece(r, read(valid, source), panel);
      }
    });
  }

  ORTHO_DEVICE void write(const Staged& staged, Half* panel) {
    if constexpr (through_registers) {
      ORTHO_UNROLL
      for (int r = 0; r < Walk::rows_each; ++r) write_piece(r, staged.pieces[r], panel);
    }
  }

  // Writes what came, and fetches the next chunk: what a piece leaves free takes the next one's at once.
  ORTHO_DEVICE void write_and_fetch(Staged& staged, Half* panel) {
    static_assert(Reading::aligned);
    walk_.for_pieces([&](int r, bool valid, const S* source, int) {
      write_piece(r, staged.pieces[r], panel);
      staged.pieces[r] = read_valid(reinterpret_cast<const Packet<S>*>(source), valid);
    });
  }

  ORTHO_DEVICE float factor(int) const { return 1; }

  // What its terms are to be multiplied by.
  ORTHO_DEVICE float unscale() const { return 1 / scale_; }

  // The largest magnitude that this thread met; it looks at some numbers.
  ORTHO_DEVICE float largest_met() const { return largest_; }
  ORTHO_DEVICE void meet(float number) { largest_ = larger_magnitude(largest_, number); }
  // Whether that is of a size that float16 terms hold with all digits.
  ORTHO_DEVICE bool is_large() const { return largest_ * scale_ >= least_exact * half_scale; }

  // The largest magnitude of all chunks, for all threads of the block.
  ORTHO_DEVICE float largest(int chunks) {
    float result = 0;
    for (int chunk = 0; chunk < chunks; ++chunk) {
      walk_.for_pieces([&](int, bool valid, const S* source, int) {
        const Packet<S> given = read(valid, source);
        ORTHO_UNROLL
        for (int i = 0; i < piece; ++i)
          result = larger_magnitude(result, number_from<float>(given.number(i)));
      });
    }
    return largest_of_block<tile_threads>(result);
  }

 private:
  ORTHO_DEVICE Packet<S> read(bool valid, const S* source) const {
    Packet<S> result{};
    if constexpr (Reading::aligned) {
      if (valid) result = *reinterpret_cast<const Packet<S>*>(source);
    } else {
      ORTHO_UNROLL
      for (int i = 0; i < piece; ++i) {
        if (valid && walk_.has_number(i)) result.set(i, source[i * walk_.stride()]);
      }
    }
    return result;
  }

  ORTHO_DEVICE void write_piece(int r, const Packet<S>& given, Half* panel) {
    if constexpr (is_scaled) meet(number_from<float>(given.number(0)));
    Words<piece / 2> terms[Terms];
    ORTHO_UNROLL
    for (int i = 0; i < piece / 2; ++i) {
      std::uint32_t pair[Terms] = {};
      if constexpr (std::is_same_v<S, Half>) {
        pair[0] = given.words[i];
      } else {
        split<Half>(scale_ * number_from<float>(given.number(2 * i)),
                    scale_ * number_from<float>(given.number(2 * i + 1)), pair);
      }
      ORTHO_UNROLL
      for (int t = 0; t < Terms; ++t) terms[t].words[i] = pair[t];
    }
    if (!walk_.is_row(r)) return;
    ORTHO_UNROLL
    for (int t = 0; t < Terms; ++t)
      *reinterpret_cast<Words<piece / 2>*>(panel + t * Panel::Own::numbers + walk_.place(r)) = terms[t];
  }

  Walk walk_;
  float scale_;
  float largest_ = 0;
};

// What HalfProducts multiply: float32 numbers in float16 terms, 16-bit numbers as they are. Copies to units,
// which go past the registers, would ask memory for each unit by itself.
template <class S, int Terms, class Reading>
using HalfOperand =
    std::conditional_t<std::is_same_v<S, float>,
                       SplitOperand<S, float16, Terms, half_depth<S>, Reading, half_arrangement>,
                       std::conditional_t<half_arrangement == Arrangement::padded,
                                          StoredOperand<S, S, wide_tile, half_depth<S>, Reading>,
                                          SplitOperand<S, S, 1, half_depth<S>, Reading, half_arrangement>>>;

}  // namespace ortho::cuda
