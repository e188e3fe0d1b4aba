// One 64 x 64 tile of a product A B^T by a block of four warps, 32 x 32 each. Chunks of the depth go through
// a pipeline of four stages in shared memory; tensor cores multiply them.
//
// Tensor cores cut digits off when they add, and float sums lose digits as they grow: the products of each
// chunk, or of less, are summed apart and then added to the sums of the tile.
#pragma once

#include "staging.cuh"

namespace ortho::cuda {

// ---- how the numbers of two panels are multiplied --------------------------------------------------------
//
// `depth` is that of a chunk, `step` that of an instruction, `run` that of the sums that are formed apart.
// multiply() adds to blocks[i][j] one step of the product, from k on, of 16 vectors of the left panel, from
// row + 16 i on, with 8 of the right one, from column + 8 j on.
//
// `is_split`: numbers are split into terms, and all products but those of the first terms go to low_blocks.
// They are so small that one sum of them for the whole depth loses nothing. Others ignore low_blocks.

constexpr int block_rows = 2, block_columns = 4;
template <class Sum>
using Blocks = Sum[block_rows][block_columns][4];

namespace lane {
ORTHO_DEVICE int of_eight() { return thread_index() % warp_size / 4; }
ORTHO_DEVICE int of_four() { return thread_index() % 4; }
}  // namespace lane

// Each number is split into a sum of bfloat16 terms: a term is what the terms before it leave, rounded. Three
// terms hold a float32 number; two hold a float16 number, or 16 bits of any. Products below the digits of the
// last term are left out, so three by three terms need six products (bf16x6). Two tf32 terms (3xTF32) would
// cost as much but lose a bit of the weights: half of a gradient's error near orthogonality.
template <int LeftTerms, int RightTerms>
struct SplitBfloat16 {
  using Entry = float;  // of the left operand
  using Sum = float;
  static constexpr int depth = 16, step = 16, run = 16;
  static constexpr bool is_split = LeftTerms > 1 || RightTerms > 1;

  // Splits two neighbors in the depth.
  template <int Terms, class P>
  static ORTHO_DEVICE void split(const P& panel, int vector, int k, std::uint32_t (&terms)[Terms]) {
    auto first = number_from<float>(panel.at(vector, k)),
         second = number_from<float>(panel.at(vector, k + 1));
    ORTHO_UNROLL
    for (int p = 0; p < Terms; ++p) {
      terms[p] = to_bfloat16_pair(first, second);
      first -= bits_as_float(terms[p] << 16);
      second -= bits_as_float(terms[p] & 0xffff0000u);
    }
  }

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks,
                                    Blocks<Sum>& low_blocks) {
    const int g = lane::of_eight(), t = lane::of_four();
    std::uint32_t left[LeftTerms][block_rows][4];
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e) {
        std::uint32_t terms[LeftTerms];
        split(a, row + 16 * i + g + 8 * (e % 2), k + 2 * t + 8 * (e / 2), terms);
        ORTHO_UNROLL
        for (int p = 0; p < LeftTerms; ++p) left[p][i][e] = terms[p];
      }
    }
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      std::uint32_t near[RightTerms], far[RightTerms];
      split(b, column + 8 * j + g, k + 2 * t, near);
      split(b, column + 8 * j + g, k + 2 * t + 8, far);
      // The smallest first.
      ORTHO_UNROLL
      for (int places = last_places; places >= 0; --places) {
        ORTHO_UNROLL
        for (int p = 0; p < LeftTerms; ++p) {
          const int q = places - p;
          if (q < 0 || q >= RightTerms) continue;
          const std::uint32_t right[2] = {near[q], far[q]};
          ORTHO_UNROLL
          for (int i = 0; i < block_rows; ++i)
            mma_16bit<bfloat16>(places == 0 ? blocks[i][j] : low_blocks[i][j], left[p][i], right);
        }
      }
    }
  }

 private:
  static constexpr int last_places = (LeftTerms > RightTerms ? LeftTerms : RightTerms) - 1;
};

// Both operands rounded to tf32.
struct Tf32 {
  using Entry = float;
  using Sum = float;
  static constexpr int depth = 16, step = 8, run = 16;
  static constexpr bool is_split = false;

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks,
                                    Blocks<Sum>&) {
    const int g = lane::of_eight(), t = lane::of_four();
    std::uint32_t left[block_rows][4];
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e)
        left[i][e] = round_to_tf32(a.at(row + 16 * i + g + 8 * (e % 2), k + t + 4 * (e / 2)));
    }
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      const std::uint32_t right[2] = {round_to_tf32(number_from<float>(b.at(column + 8 * j + g, k + t))),
                                      round_to_tf32(number_from<float>(b.at(column + 8 * j + g, k + t + 4)))};
      ORTHO_UNROLL
      for (int i = 0; i < block_rows; ++i) mma_tf32(blocks[i][j], left[i], right);
    }
  }
};

// Numbers of 16 bits as they are stored, in pairs of neighbors in the depth.
template <class Half>
struct Mma16Bit {
  using Entry = Half;
  using Sum = float;
  static constexpr int depth = 32, step = 16, run = 32;
  static constexpr bool is_split = false;

  template <class P>
  static ORTHO_DEVICE std::uint32_t pair(const P& panel, int vector, int k) {
    if constexpr (P::major == Major::depth) {
      return *reinterpret_cast<const std::uint32_t*>(panel.entries + vector * P::Own::vector_step + k);
    } else {
      return panel.at(vector, k).bits | std::uint32_t{panel.at(vector, k + 1).bits} << 16;
    }
  }

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks,
                                    Blocks<Sum>&) {
    const int g = lane::of_eight(), t = lane::of_four();
    std::uint32_t left[block_rows][4];
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e)
        left[i][e] = pair(a, row + 16 * i + g + 8 * (e % 2), k + 2 * t + 8 * (e / 2));
    }
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      const std::uint32_t right[2] = {pair(b, column + 8 * j + g, k + 2 * t),
                                      pair(b, column + 8 * j + g, k + 2 * t + 8)};
      ORTHO_UNROLL
      for (int i = 0; i < block_rows; ++i) mma_16bit<Half>(blocks[i][j], left[i], right);
    }
  }
};

struct Fp64 {
  using Entry = double;
  using Sum = double;
  static constexpr int depth = 8, step = 4, run = 8;
  static constexpr bool is_split = false;

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks,
                                    Blocks<Sum>&) {
    const int g = lane::of_eight(), t = lane::of_four();
    double left[block_rows][2];
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int e = 0; e < 2; ++e) left[i][e] = a.at(row + 16 * i + g + 8 * e, k + t);
    }
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      const double right = b.at(column + 8 * j + g, k + t);
      ORTHO_UNROLL
      for (int i = 0; i < block_rows; ++i) mma_fp64(blocks[i][j], left[i], right);
    }
  }
};

// ---- the tile -------------------------------------------------------------------------------------------

// The block of this thread's warp within the tile.
ORTHO_DEVICE int warp_row() { return thread_index() / warp_size / 2 * warp_side; }
ORTHO_DEVICE int warp_column() { return thread_index() / warp_size % 2 * warp_side; }

// Calls visit(i, j, e) for the indices of Blocks.
template <class Visit>
ORTHO_DEVICE void for_indices(const Visit& visit) {
  ORTHO_UNROLL
  for (int i = 0; i < block_rows; ++i) {
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e) visit(i, j, e);
    }
  }
}

// Calls visit(row, column, sum) for the sums of this thread, rows and columns within the tile.
template <class Sum, class Visit>
ORTHO_DEVICE void for_sums(Blocks<Sum>& sums, const Visit& visit) {
  for_indices([&](int i, int j, int e) {
    visit(warp_row() + 16 * i + lane::of_eight() + 8 * (e / 2),
          warp_column() + 8 * j + 2 * lane::of_four() + e % 2, sums[i][j][e]);
  });
}

template <class Sum>
ORTHO_DEVICE void clear(Blocks<Sum>& sums) {
  for_sums<Sum>(sums, [](int, int, Sum& sum) { sum = 0; });
}

template <class Sum>
ORTHO_DEVICE void add(const Blocks<Sum>& part, Blocks<Sum>& sums) {
  for_indices([&](int i, int j, int e) { sums[i][j][e] += part[i][j][e]; });
}

// sums += the products of the two panels for one run of the depth.
template <class Products, class A, class B, class Sum = typename Products::Sum>
ORTHO_DEVICE void add_run(const A& a, const B& b, int begin, Blocks<Sum>& low_sums, Blocks<Sum>& sums) {
  const auto multiply = [&](auto& blocks) {
    ORTHO_UNROLL
    for (int k = begin; k < begin + Products::run; k += Products::step)
      Products::multiply(a, warp_row(), b, warp_column(), k, blocks, low_sums);
  };
  if constexpr (std::is_same_v<Sum, double>) {
    multiply(sums);
  } else {
    Blocks<Sum> part;
    clear<Sum>(part);
    multiply(part);
    add<Sum>(part, sums);
  }
}

constexpr int stages = 4;

// The widest layout of a chunk of one operand: 64 vectors of 64 bytes, and padding.
constexpr int panel_bytes = 5120;
constexpr std::size_t tile_shared_bytes = std::size_t{2} * stages * panel_bytes;

// sums = A B^T for `chunks` chunks. stage(chunk, panel) of Left and Right copies a chunk to shared memory. A
// warp whose square of the tile is not needed is `idle`: its sums are zero, and it calls instead(panel) with
// each chunk of the left operand.
template <class Products, class Left, class Right, class Instead, class Sum = typename Products::Sum>
ORTHO_DEVICE void tile_product(const Left& left, const Right& right, int chunks, bool idle, Blocks<Sum>& sums,
                               const Instead& instead) {
  using LeftEntry = typename Left::Panel::Entry;
  using RightEntry = typename Right::Panel::Entry;
  static_assert(Left::Panel::Own::bytes <= panel_bytes && Right::Panel::Own::bytes <= panel_bytes);
  unsigned char* const memory = shared_memory();
  const auto left_panel = [&](int chunk) {
    return reinterpret_cast<LeftEntry*>(memory + chunk % stages * panel_bytes);
  };
  const auto right_panel = [&](int chunk) {
    return reinterpret_cast<RightEntry*>(memory + (stages + chunk % stages) * panel_bytes);
  };
  const auto stage = [&](int chunk) {
    if (chunk < chunks) {
      left.stage(chunk, left_panel(chunk));
      right.stage(chunk, right_panel(chunk));
    }
    commit_copies();  // an empty group keeps the count of groups right, to the last: none is left over
  };
  clear<Sum>(sums);
  Blocks<Sum> low_sums;
  clear<Sum>(low_sums);
  // The first rounds only fill the pipeline.
  ORTHO_UNROLL_BY(1)
  for (int chunk = 1 - stages; chunk < chunks; ++chunk) {
    if (chunk >= 0) {
      await_copies<stages - 2>();
      block_barrier();  // all threads see the chunk, and none reads the one before any more
    }
    stage(chunk + stages - 1);
    if (chunk < 0) continue;
    const typename Left::Panel a{left_panel(chunk)};
    if (idle) {
      instead(a);
      continue;
    }
    const typename Right::Panel b{right_panel(chunk)};
    ORTHO_UNROLL
    for (int begin = 0; begin < Products::depth; begin += Products::run)
      add_run<Products>(a, b, begin, low_sums, sums);
  }
  if constexpr (Products::is_split) add<Sum>(low_sums, sums);
  block_barrier();  // the shared memory may be used for something else
}

}  // namespace ortho::cuda
