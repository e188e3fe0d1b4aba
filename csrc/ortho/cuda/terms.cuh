// Numbers as sums of 16-bit terms: a term is what the terms before it leave, rounded.
//
// Two float16 terms hold 22 bits of a number, and their three largest products are a float32 product but for
// its last bit (Ootomo and Yokota, Recovering single precision accuracy from Tensor Cores while surpassing
// the FP32 theoretical peak performance, 2022). The price is float16's range. Three bfloat16 terms hold any
// float32 number exactly, at twice as many products.
#pragma once

#include "staging.cuh"

namespace ortho::cuda {

// Float16 terms are those of a number times this: numbers below 4 don't overflow, and numbers from
// `least_exact` on lose no digit that float32 weights of that size have.
constexpr float half_scale = 0x1p14f;
constexpr float least_exact = 0x1p-17f;

template <class Half>
constexpr float scale_of = std::is_same_v<Half, float16> ? half_scale : 1.0f;

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

// An operand that is split on its way. Its numbers come to registers while the chunk before is multiplied.
template <class S, class Half, int Terms, int Depth, Major major>
class SplitOperand {
 public:
  using Panel = cuda::Panel<Half, wide_tile, Depth, major, Terms>;
  static constexpr bool through_registers = true;
  static constexpr float scale = scale_of<Half>;

 private:
  static constexpr int piece = 16 / sizeof(S);
  using Walk = RowWalk<Panel, S, piece>;

 public:
  struct Piece {
    alignas(16) S numbers[piece];
  };
  struct Staged {
    Piece pieces[Walk::rows_each];
  };

  ORTHO_DEVICE SplitOperand(const Operand<S>& operand, std::int32_t first, std::int32_t k)
      : aligned_(is_aligned(operand, major)), walk_(Walk::template from<Depth>(operand, first, k)) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged& staged, Half*) {
    int r = 0;
    if (aligned_) {
      walk_.for_rows([&](bool valid, const S* source, int) {
        Piece& target = staged.pieces[r++];
        target = {};
        if (valid) target = *reinterpret_cast<const Piece*>(source);
      });
    } else {
      walk_.for_rows([&](bool valid, const S* source, int) {
        Piece& target = staged.pieces[r++];
        ORTHO_UNROLL
        for (int i = 0; i < piece; ++i) {
          target.numbers[i] = S{};
          if (valid && within(walk_.number + i, walk_.numbers)) target.numbers[i] = source[i * walk_.stride];
        }
      });
    }
    walk_.template step<Depth>();
  }

  ORTHO_DEVICE void write(const Staged& staged, Half* panel) {
    int r = 0;
    walk_.for_rows([&](bool, const S*, int place) {
      const Piece& given = staged.pieces[r++];
      const float sample = number_from<float>(given.numbers[0]);
      largest_ = sample > largest_ ? sample : -sample > largest_ ? -sample : largest_;
      Words<piece / 2> terms[Terms];
      ORTHO_UNROLL
      for (int i = 0; i < piece / 2; ++i) {
        std::uint32_t pair[Terms];
        split<Half>(scale * number_from<float>(given.numbers[2 * i]),
                    scale * number_from<float>(given.numbers[2 * i + 1]), pair);
        ORTHO_UNROLL
        for (int t = 0; t < Terms; ++t) terms[t].words[i] = pair[t];
      }
      ORTHO_UNROLL
      for (int t = 0; t < Terms; ++t)
        *reinterpret_cast<Words<piece / 2>*>(panel + t * Panel::Own::numbers + place) = terms[t];
    });
  }

  ORTHO_DEVICE float factor(int) const { return 1; }

  // Whether this thread met a number of a size that float16 terms hold with all digits; it looks at some.
  ORTHO_DEVICE bool is_large() const { return largest_ >= least_exact; }

 private:
  bool aligned_;
  Walk walk_;
  float largest_ = 0;
};

}  // namespace ortho::cuda
