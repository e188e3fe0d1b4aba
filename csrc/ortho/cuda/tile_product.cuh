// One 64 x 64 tile of a product A B^T by a block of four warps, 32 x 32 each. Chunks of the depth go through
// a pipeline of four stages in shared memory; tensor cores multiply them.
//
// Tensor cores cut digits off when they add, and float sums lose digits as they grow: the products of each
// chunk, or of less, are summed apart and then added to the sums of the tile.
#pragma once

#include "panel.cuh"

namespace ortho::cuda {

// ---- how the numbers of two panels are multiplied --------------------------------------------------------
//
// `depth` is that of a chunk, `step` that of an instruction, `run` that of the sums that are formed apart.
// multiply() adds to blocks[i][j] one step of the product, from k on, of 16 vectors of the left panel, from
// row + 16 i on, with 8 of the right one, from column + 8 j on.

constexpr int block_rows = 2, block_columns = 4;
template <class Sum>
using Blocks = Sum[block_rows][block_columns][4];

namespace lane {
ORTHO_DEVICE int of_eight() { return thread_index() % warp_size / 4; }
ORTHO_DEVICE int of_four() { return thread_index() % 4; }
}  // namespace lane

// float32 as sums of two tf32 numbers; the product of the small ones is below float's digits.
struct TripleTf32 {
  using Entry = float;
  using Sum = float;
  static constexpr int depth = 16, step = 8, run = 8;

  struct Split {
    std::uint32_t high, low;
  };
  static ORTHO_DEVICE Split split(float number) {
    const std::uint32_t high = round_to_tf32(number);
    return {high, round_to_tf32(number - bits_as_float(high))};
  }

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks) {
    const int g = lane::of_eight(), t = lane::of_four();
    std::uint32_t high[block_rows][4], low[block_rows][4];
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e) {
        const Split parts = split(a.at(row + 16 * i + g + 8 * (e % 2), k + t + 4 * (e / 2)));
        high[i][e] = parts.high;
        low[i][e] = parts.low;
      }
    }
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      const Split near = split(number_from<float>(b.at(column + 8 * j + g, k + t)));
      const Split far = split(number_from<float>(b.at(column + 8 * j + g, k + t + 4)));
      const std::uint32_t b_high[2] = {near.high, far.high}, b_low[2] = {near.low, far.low};
      ORTHO_UNROLL
      for (int i = 0; i < block_rows; ++i) {
        multiply_tf32(blocks[i][j], low[i], b_high);
        multiply_tf32(blocks[i][j], high[i], b_low);
        multiply_tf32(blocks[i][j], high[i], b_high);
      }
    }
  }
};

// Both operands rounded to tf32, which bfloat16 and float16 are already.
struct SingleTf32 {
  using Entry = float;
  using Sum = float;
  static constexpr int depth = 16, step = 8, run = 16;

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks) {
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
      for (int i = 0; i < block_rows; ++i) multiply_tf32(blocks[i][j], left[i], right);
    }
  }
};

// Pairs of 16-bit numbers, neighbours in the depth: as they are stored, or rounded from float.
template <class Half, class Stored>
struct Halves {
  using Entry = Stored;
  using Sum = float;
  static constexpr int depth = sizeof(Stored) == 4 ? 16 : 32, step = 16, run = depth;

  template <class P>
  static ORTHO_DEVICE std::uint32_t pair(const P& panel, int vector, int k) {
    if constexpr (std::is_same_v<Stored, Half> && P::lie == Lies::along_depth) {
      return *reinterpret_cast<const std::uint32_t*>(panel.entries + vector * P::Own::vector_step + k);
    } else {
      const Half first = half(panel.at(vector, k)), second = half(panel.at(vector, k + 1));
      return first.bits | std::uint32_t{second.bits} << 16;
    }
  }
  static ORTHO_DEVICE Half half(Half number) { return number; }
  static ORTHO_DEVICE Half half(float number) { return stored_from<Half>(number); }

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks) {
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
      for (int i = 0; i < block_rows; ++i) multiply_halves<Half>(blocks[i][j], left[i], right);
    }
  }
};

struct InDouble {
  using Entry = double;
  using Sum = double;
  static constexpr int depth = 8, step = 4, run = 8;

  template <class A, class B>
  static ORTHO_DEVICE void multiply(const A& a, int row, const B& b, int column, int k, Blocks<Sum>& blocks) {
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
      for (int i = 0; i < block_rows; ++i) multiply_double(blocks[i][j], left[i], right);
    }
  }
};

// ---- the tile -------------------------------------------------------------------------------------------

// The block of this thread's warp within the tile.
ORTHO_DEVICE int warp_row() { return thread_index() / warp_size / 2 * 32; }
ORTHO_DEVICE int warp_column() { return thread_index() / warp_size % 2 * 32; }

// Calls visit(row, column, sum) for the sums of this thread, rows and columns within the tile.
template <class Sum, class Visit>
ORTHO_DEVICE void for_sums(Blocks<Sum>& sums, const Visit& visit) {
  ORTHO_UNROLL
  for (int i = 0; i < block_rows; ++i) {
    ORTHO_UNROLL
    for (int j = 0; j < block_columns; ++j) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e) {
        visit(warp_row() + 16 * i + lane::of_eight() + 8 * (e / 2),
              warp_column() + 8 * j + 2 * lane::of_four() + e % 2, sums[i][j][e]);
      }
    }
  }
}

// sums += the products of the two panels for one run of the depth.
template <class Products, class A, class B, class Sum = typename Products::Sum>
ORTHO_DEVICE void add_run(const A& a, const B& b, int begin, Blocks<Sum>& sums) {
  const auto multiply = [&](auto& blocks) {
    ORTHO_UNROLL
    for (int k = begin; k < begin + Products::run; k += Products::step)
      Products::multiply(a, warp_row(), b, warp_column(), k, blocks);
  };
  if constexpr (std::is_same_v<Sum, double>) {
    multiply(sums);
  } else {
    Blocks<Sum> part;
    for_sums<Sum>(part, [](int, int, Sum& sum) { sum = 0; });
    multiply(part);
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int j = 0; j < block_columns; ++j) {
        ORTHO_UNROLL
        for (int e = 0; e < 4; ++e) sums[i][j][e] += part[i][j][e];
      }
    }
  }
}

constexpr int stages = 4;

// Of both operands of a product: the widest layout of a chunk. The double ones are 64 bytes x 64 vectors and
// padding, as the others.
constexpr int panel_bytes = 5120;
constexpr std::size_t tile_shared_bytes = std::size_t{2} * stages * panel_bytes;

// sums = A B^T for `chunks` chunks. Left and Right bring a chunk of theirs into shared memory: stage(chunk,
// panel). A warp that `idle` says has nothing to do only helps with that.
template <class Products, class Left, class Right, class Sum = typename Products::Sum>
ORTHO_DEVICE void tile_product(const Left& left, const Right& right, int chunks, bool idle,
                               Blocks<Sum>& sums) {
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
  const auto bring = [&](int chunk) {
    if (chunk < chunks) {
      left.stage(chunk, left_panel(chunk));
      right.stage(chunk, right_panel(chunk));
    }
    commit_copies();  // an empty group keeps the count of groups right, to the last: none is left over
  };
  for_sums<Sum>(sums, [](int, int, Sum& sum) { sum = 0; });
  // The first rounds only fill the pipeline.
  ORTHO_UNROLL_BY(1)
  for (int chunk = 1 - stages; chunk < chunks; ++chunk) {
    if (chunk >= 0) {
      await_copies<stages - 2>();
      block_barrier();  // the chunk is there for all, and nobody reads the one before any more
    }
    bring(chunk + stages - 1);
    if (chunk < 0 || idle) continue;
    const typename Left::Panel a{left_panel(chunk)};
    const typename Right::Panel b{right_panel(chunk)};
    ORTHO_UNROLL
    for (int begin = 0; begin < Products::depth; begin += Products::run) add_run<Products>(a, b, begin, sums);
  }
  block_barrier();  // the shared memory may be used for something else
}

}  // namespace ortho::cuda
