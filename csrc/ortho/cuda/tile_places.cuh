// Which entries of a tile the sums of a thread are, and how one goes through them.
#pragma once

#include "staging.cuh"

namespace ortho::cuda {

// The sums of a thread in a tile of that side: of blocks of 16 x 8 entries, four each.
template <class Sum, int Side>
using Blocks = Sum[Side / 32][Side / 32][4];

// Which entries of a tile a thread's warp has the sums of: block (i, j) of Blocks is block_row(i) below
// row(thread) and block_column(i, j) beside column(thread).
//
// Two warps below each other, four side by side.
template <int Side>
struct WarpGrid {
  static constexpr int rows = Side / 2, columns = Side / 4;
  static ORTHO_DEVICE int row(int thread) { return thread / warp_size / 4 * rows; }
  static ORTHO_DEVICE int column(int thread) { return thread / warp_size % 4 * columns; }
  static ORTHO_DEVICE int block_row(int i) { return 16 * i; }
  static ORTHO_DEVICE int block_column(int, int j) { return 8 * j; }
  // Of a tile with entries in so many of its rows and columns: those columns of the warp that are needed.
  static ORTHO_DEVICE int columns_needed(int thread, int rows_there, int columns_there) {
    return row(thread) < rows_there && column(thread) < columns_there ? columns : 0;
  }
  // In a tile on the diagonal two warps have only entries above it, which are not needed. They look at the
  // tile's vectors: each thread of theirs at one, and at another `warp_size` behind.
  static constexpr int looked_at = 2, lookers = 1;
  static ORTHO_DEVICE bool looks(int thread) { return row(thread) + rows <= column(thread); }
  static ORTHO_DEVICE int vector_looked_at(int thread) {
    return (thread / warp_size - 2) * looked_at * warp_size + thread % warp_size;
  }
  static ORTHO_DEVICE int columns_needed_on_diagonal(int thread, int rows_there) {
    return looks(thread) ? 0 : columns_needed(thread, rows_there, rows_there);
  }
};

// Eight warps below each other. In a tile on the diagonal the first four, a warpgroup, need half of their
// columns. All threads look at its vectors: two at each, at half of the depth.
struct WarpRows {
  static constexpr int rows = 16, group_rows = 64, group_threads = 4 * warp_size;
  static ORTHO_DEVICE int row(int thread) { return thread / warp_size * rows; }
  static ORTHO_DEVICE int column(int) { return 0; }
  static ORTHO_DEVICE int group_row(int thread) { return thread / group_threads * group_rows; }
  static ORTHO_DEVICE int block_row(int) { return 0; }
  static ORTHO_DEVICE int block_column(int i, int j) { return 32 * i + 8 * j; }
  static ORTHO_DEVICE int columns_needed(int thread, int rows_there, int columns_there) {
    return group_row(thread) < rows_there ? columns_there : 0;
  }
  static constexpr int looked_at = 1, lookers = 2;
  static ORTHO_DEVICE bool looks(int) { return true; }
  static ORTHO_DEVICE int vector_looked_at(int thread) { return thread % (tile_threads / lookers); }
  static ORTHO_DEVICE int columns_needed_on_diagonal(int thread, int rows_there) {
    const int below = group_row(thread) + group_rows;
    return columns_needed(thread, rows_there, below < rows_there ? below : rows_there);
  }
};

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

// Calls visit(row, for_columns) for the rows of this thread's sums, and for_columns(visit) calls
// visit(column, first, second) for the sums in it, two neighbors at a time; rows and columns within the tile.
template <class Places, class Sum, int N, class Visit>
ORTHO_DEVICE void for_rows(Sum (&sums)[N][N][4], const Visit& visit) {
  const int thread = computed_here(thread_index());
  const int row = Places::row(thread) + thread % warp_size / 4;
  const int column = Places::column(thread) + thread % 4 * 2;
  ORTHO_UNROLL
  for (int i = 0; i < N; ++i) {
    ORTHO_UNROLL
    for (int e = 0; e < 4; e += 2) {
      visit(row + Places::block_row(i) + 4 * e, [&](const auto& visit_pair) {
        ORTHO_UNROLL
        for (int j = 0; j < N; ++j)
          visit_pair(column + Places::block_column(i, j), sums[i][j][e], sums[i][j][e + 1]);
      });
    }
  }
}

// Calls visit(row, column, first, second) likewise.
template <class Places, class Sum, int N, class Visit>
ORTHO_DEVICE void for_pairs(Sum (&sums)[N][N][4], const Visit& visit) {
  for_rows<Places>(sums, [&](int row, const auto& for_columns) {
    for_columns([&](int column, Sum& first, Sum& second) { visit(row, column, first, second); });
  });
}

// Calls visit(row, column, sum) likewise.
template <class Places, class Sum, int N, class Visit>
ORTHO_DEVICE void for_sums(Sum (&sums)[N][N][4], const Visit& visit) {
  for_pairs<Places>(sums, [&](int row, int column, Sum& first, Sum& second) {
    visit(row, column, first);
    visit(row, column + 1, second);
  });
}

template <class Sum, int N>
ORTHO_DEVICE void clear(Sum (&sums)[N][N][4]) {
  for_indices<32 * N>([&](int i, int j, int e) { sums[i][j][e] = 0; });
}

template <class Sum, int N>
ORTHO_DEVICE void multiply(Sum (&sums)[N][N][4], Sum factor) {
  for_indices<32 * N>([&](int i, int j, int e) { sums[i][j][e] *= factor; });
}

}  // namespace ortho::cuda
