// One square tile of a product A B^T by a block of eight warps, two below each other and four side by side.
// Chunks of the depth go through a pipeline in shared memory; tensor cores multiply them.
//
// Tensor cores cut digits off when they add, and float sums lose digits as they grow: the products of each
// chunk, or of less, are summed apart and then added to the sums of the tile.
#pragma once

#include "staging.cuh"
#include "terms.cuh"

namespace ortho::cuda {

// The sums of a thread in a tile of that side: of blocks of 16 x 8 entries, four each.
template <class Sum, int Side>
using Blocks = Sum[Side / 32][Side / 32][4];

// Of a thread's warp, within the tile.
template <int Side>
ORTHO_DEVICE int warp_row(int thread = thread_index()) {
  return thread / warp_size / 4 * (Side / 2);
}
template <int Side>
ORTHO_DEVICE int warp_column(int thread = thread_index()) {
  return thread / warp_size % 4 * (Side / 4);
}

// Where a thread's row of its warp's first 16 vectors and 16 of the depth is in either panel, for
// load_blocks(): a left operand is four blocks of one register each, a right one two of two registers.
template <class A, class B>
struct WarpPlace {
  static constexpr int side = A::side;
  int left, right;

  ORTHO_DEVICE WarpPlace() {
    const int thread = computed_here(thread_index());
    const int block = thread % warp_size / 8, row = thread % 8;
    left = place_in<A>(warp_row<side>(thread) + block % 2 * 8, block / 2 * 8, row);
    right = place_in<B>(warp_column<side>(thread) + block / 2 * 8, block % 2 * 8, row);
  }

 private:
  template <class P>
  static ORTHO_DEVICE int place_in(int vector, int k, int row) {
    constexpr bool along = P::major == Major::depth;
    return (vector + (along ? row : 0)) * P::Own::vector_step + (k + (along ? 0 : row)) * P::Own::depth_step;
  }
};

// ---- how the numbers of two panels are multiplied --------------------------------------------------------
//
// `side` is that of a tile, `depth` that of a chunk, `run` that of the sums that are formed apart. add_run()
// adds factor x the products of one run of two panels, from k on, to the sums of this thread's warp.

// Products of 16-bit terms, those of the last terms first: they are the smallest. Products below the digits
// of the last term are left out, so two by two terms need three products, three by three terms six.
template <class Half, int LeftTerms, int RightTerms, int Depth>
struct TermProducts {
  using Sum = float;
  static constexpr int side = wide_tile, depth = Depth, step = 16;
  static constexpr int run = LeftTerms > 1 && RightTerms > 1 ? step : depth;

  template <class A, class B>
  static ORTHO_DEVICE void add_run(const A& a, const B& b, const WarpPlace<A, B>& place, int k, float factor,
                                   Blocks<Sum, side>& sums) {
    constexpr int steps = run / step, rows = side / 32, columns = side / 32;
    std::uint32_t right[steps][RightTerms][columns / 2][4];
    ORTHO_UNROLL
    for (int s = 0; s < steps; ++s) {
      ORTHO_UNROLL
      for (int q = 0; q < RightTerms; ++q) {
        ORTHO_UNROLL
        for (int j = 0; j < columns / 2; ++j)
          load_blocks<B::major == Major::vectors>(b.address(q, 16 * j, k + s * step) + place.right,
                                                  right[s][q][j]);
      }
    }
    // A row of blocks at a time, so that few of the sums that are formed apart are in registers.
    ORTHO_UNROLL
    for (int i = 0; i < rows; ++i) {
      float part[columns][4] = {};
      ORTHO_UNROLL
      for (int s = 0; s < steps; ++s) {
        std::uint32_t left[LeftTerms][4];
        ORTHO_UNROLL
        for (int p = 0; p < LeftTerms; ++p)
          load_blocks<A::major == Major::vectors>(a.address(p, 16 * i, k + s * step) + place.left, left[p]);
        multiply(left, right[s], part);
      }
      ORTHO_UNROLL
      for (int j = 0; j < columns; ++j) {
        ORTHO_UNROLL
        for (int e = 0; e < 4; ++e) sums[i][j][e] += factor * part[j][e];
      }
    }
  }

 private:
  static constexpr int last_places = (LeftTerms > RightTerms ? LeftTerms : RightTerms) - 1;

  template <int Columns>
  static ORTHO_DEVICE void multiply(const std::uint32_t (&left)[LeftTerms][4],
                                    const std::uint32_t (&right)[RightTerms][Columns / 2][4],
                                    float (&part)[Columns][4]) {
    ORTHO_UNROLL
    for (int places = last_places; places >= 0; --places) {
      ORTHO_UNROLL
      for (int p = 0; p < LeftTerms; ++p) {
        const int q = places - p;
        if (q < 0 || q >= RightTerms) continue;
        ORTHO_UNROLL
        for (int j = 0; j < Columns; ++j) {
          const std::uint32_t (&two)[4] = right[q][j / 2];
          mma_16bit<Half>(part[j], left[p], {two[j % 2 * 2], two[j % 2 * 2 + 1]});
        }
      }
    }
  }
};

// All digits of float32 numbers, whatever their size.
using ExactProducts = TermProducts<bfloat16, 3, 3, 16>;

struct Fp64 {
  using Sum = double;
  static constexpr int side = narrow_tile, depth = 8, run = 8;

  template <class A, class B>
  static ORTHO_DEVICE void add_run(const A& a, const B& b, const WarpPlace<A, B>&, int begin, float,
                                   Blocks<Sum, side>& sums) {
    constexpr int step = 4;
    const int g = thread_index() % warp_size / 4, t = thread_index() % 4;
    ORTHO_UNROLL
    for (int k = begin; k < begin + run; k += step) {
      ORTHO_UNROLL
      for (int i = 0; i < side / 32; ++i) {
        const int row = warp_row<side>() + 16 * i + g;
        const double left[2] = {a.at(row, k + t), a.at(row + 8, k + t)};
        ORTHO_UNROLL
        for (int j = 0; j < side / 32; ++j)
          mma_fp64(sums[i][j], left, b.at(warp_column<side>() + 8 * j + g, k + t));
      }
    }
  }
};

// ---- the tile -------------------------------------------------------------------------------------------

// Calls visit(i, j, e) for the indices of Blocks.
template <int Side, class Visit>
ORTHO_DEVICE void for_indices(const Visit& visit) {
  ORTHO_UNROLL
  for (int i = 0; i < Side / 32; ++i) {
    ORTHO_UNROLL
    for (int j = 0; j < Side / 32; ++j) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e) visit(i, j, e);
    }
  }
}

// Calls visit(row, column, first, second) for the sums of this thread, two neighbors in a row at a time; rows
// and columns within the tile.
template <class Sum, int N, class Visit>
ORTHO_DEVICE void for_pairs(Sum (&sums)[N][N][4], const Visit& visit) {
  constexpr int side = 32 * N;
  const int thread = computed_here(thread_index());
  const int row = warp_row<side>(thread) + thread % warp_size / 4;
  const int column = warp_column<side>(thread) + thread % 4 * 2;
  ORTHO_UNROLL
  for (int i = 0; i < N; ++i) {
    ORTHO_UNROLL
    for (int j = 0; j < N; ++j) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; e += 2)
        visit(row + 16 * i + 4 * e, column + 8 * j, sums[i][j][e], sums[i][j][e + 1]);
    }
  }
}

// Calls visit(row, column, sum) likewise.
template <class Sum, int N, class Visit>
ORTHO_DEVICE void for_sums(Sum (&sums)[N][N][4], const Visit& visit) {
  for_pairs(sums, [&](int row, int column, Sum& first, Sum& second) {
    visit(row, column, first);
    visit(row, column + 1, second);
  });
}

template <class Sum, int N>
ORTHO_DEVICE void clear(Sum (&sums)[N][N][4]) {
  for_indices<32 * N>([&](int i, int j, int e) { sums[i][j][e] = 0; });
}

// Stages of the pipeline: numbers that come through registers are one chunk ahead. So are operands of several
// terms, of which no more would fit.
template <class Left, class Right>
constexpr int stages_of =
    Left::through_registers || Right::through_registers || Left::Panel::terms + Right::Panel::terms > 2 ? 2
                                                                                                        : 4;

constexpr std::size_t tile_shared_bytes = 81'920;

// sums = A B^T for `chunks` chunks. Of Left and Right, fetch() begins to bring the next chunk, write() brings
// the rest of it, and factor(chunk) is that of the chunk's products. `same`: both are the same vectors, and
// the left panel serves as the right one. A warp whose part of the tile is not needed is `idle`: its sums are
// zero, and it calls instead(panel) with each chunk of the left operand.
template <class Products, class Left, class Right, class Instead, class Sum = typename Products::Sum>
ORTHO_DEVICE void tile_product(Left& left, Right& right, int chunks, bool same, bool idle,
                               Blocks<Sum, Products::side>& sums, const Instead& instead) {
  using LeftPanel = typename Left::Panel;
  using RightPanel = typename Right::Panel;
  constexpr int stages = stages_of<Left, Right>;
  static_assert(stages * (LeftPanel::bytes + RightPanel::bytes) <= static_cast<int>(tile_shared_bytes));
  unsigned char* const memory = shared_memory();
  const auto left_panel = [&](int chunk) {
    return reinterpret_cast<typename LeftPanel::Entry*>(memory + chunk % stages * LeftPanel::bytes);
  };
  const auto right_panel = [&](int chunk) {
    return reinterpret_cast<typename RightPanel::Entry*>(memory + stages * LeftPanel::bytes +
                                                         chunk % stages * RightPanel::bytes);
  };
  const auto right_or_same = [&](int chunk) {
    if constexpr (std::is_same_v<LeftPanel, RightPanel>) {
      if (same) return left_panel(chunk);
    }
    return right_panel(chunk);
  };
  const WarpPlace<LeftPanel, RightPanel> place;
  clear(sums);
  // The first rounds only fill the pipeline.
  ORTHO_UNROLL_BY(1)
  for (int chunk = 1 - stages; chunk < chunks; ++chunk) {
    if (chunk >= 0) {
      await_copies<stages - 2>();
      block_barrier();  // all threads see the chunk, and none reads the one before any more
    }
    const int next = chunk + stages - 1;
    typename Left::Staged staged_left;
    typename Right::Staged staged_right;
    if (next < chunks) {
      left.fetch(staged_left, left_panel(next));
      right.fetch(staged_right, right_panel(next));
    }
    commit_copies();  // an empty group keeps the count of groups right, to the last: none is left over
    if (chunk >= 0) {
      const LeftPanel a{left_panel(chunk)};
      if (idle) {
        instead(a);
      } else {
        const float factor = left.factor(chunk);
        ORTHO_UNROLL
        for (int begin = 0; begin < Products::depth; begin += Products::run)
          Products::add_run(a, RightPanel{right_or_same(chunk)}, place, begin, factor, sums);
      }
    }
    if (next < chunks) {
      left.write(staged_left, left_panel(next));
      right.write(staged_right, right_panel(next));
    }
  }
  block_barrier();  // the shared memory may be used for something else
}

// Whether the products of float16 terms are those of the numbers, for the whole block: none was too large for
// float16, which makes sums infinite or NaN, and neither operand was so small that digits got lost.
template <class Left, class Right, class Sum, int N>
ORTHO_DEVICE bool hold_all_digits(const Left& left, const Right& right, const Sum (&sums)[N][N][4]) {
  float fault = 0;
  for_indices<32 * N>([&](int i, int j, int e) { fault += 0 * sums[i][j][e]; });
  double counts[3] = {fault == 0 ? 0.0 : 1.0, left.is_large() ? 1.0 : 0.0, right.is_large() ? 1.0 : 0.0};
  sum_over_block<tile_threads>(counts);
  return counts[0] == 0 && counts[1] > 0 && counts[2] > 0;
}

template <class Sum, int N>
ORTHO_DEVICE void multiply(Sum (&sums)[N][N][4], Sum factor) {
  for_indices<32 * N>([&](int i, int j, int e) { sums[i][j][e] *= factor; });
}

}  // namespace ortho::cuda
