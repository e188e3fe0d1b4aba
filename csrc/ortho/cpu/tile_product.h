// One tile of a product A B^T, in the way of Goto and van de Geijn: panels of both operands are packed for a
// chunk of the depth; the panels of a block's columns then stay in L1 while a register-blocked kernel runs
// down all rows of the left operand, which come from L2. The residual (A = B = W) and the backward product (R
// times W) both come down to this.
#pragma once

#include "panels.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class T>
constexpr int block_columns = block_vectors * lanes<T>;
template <class T>
constexpr int block_size = block_rows * block_columns<T>;

// A vector's place in its panel, and how far the next panel is.
template <class P>
struct Panels {
  const typename P::Entry* first;
  std::int64_t stride;
};

// From this vector on, in panels [panel][entries][lanes].
template <class P>
ORTHO_INLINE Panels<P> panels_from(const typename P::Entry* panels, std::int64_t vector,
                                   std::int64_t entries) {
  const std::int64_t offset = vector % width<P>;
  return {panels + (vector - offset) * entries + offset, entries * width<P>};
}

// block[r][c] (+)= sum over d of a[d][r] * b[d][c]. Of each row of the block the first `Vectors` registers
// are computed. The rounding error of a sum grows with its length: sums of `summed_at_once` products are
// formed apart and then added.
template <class P, int Vectors>
void block_product(const Panels<P>& left, const Panels<P>& right, std::int64_t depth,
                   std::int64_t summed_at_once, typename P::Number* block, bool accumulate) {
  using T = typename P::Number;
  const typename P::Entry *a = left.first, *b = right.first;
  std::int64_t entries = entries_of<P>(depth);
  do {
    const std::int64_t some = smaller(entries, summed_at_once);
    Vector<T> sums[block_rows][Vectors] = {};
    for (std::int64_t d = 0; d < some; ++d) {
#pragma GCC unroll 8
      for (int r = 0; r < block_rows; ++r) {
#pragma GCC unroll 4
        for (int v = 0; v < Vectors; ++v) {
          const auto factor = a[r / width<P> * left.stride + r % width<P>];
          sums[r][v] = P::multiply_add(factor, b + v * right.stride, sums[r][v]);
        }
      }
      a += width<P>;
      b += width<P>;
    }
#pragma GCC unroll 8
    for (int r = 0; r < block_rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) {
        T* target = block + r * block_columns<T> + v * lanes<T>;
        store<T, T>(target, accumulate ? sums[r][v] + load<T>(target) : sums[r][v]);
      }
    }
    accumulate = true;
    entries -= some;
  } while (entries > 0);
}

// As many registers of each row as are needed.
template <class P>
ORTHO_INLINE void block_product(int vectors, const Panels<P>& left, const Panels<P>& right,
                                std::int64_t depth, std::int64_t summed_at_once, typename P::Number* block,
                                bool accumulate) {
  if (vectors == block_vectors) {
    block_product<P, block_vectors>(left, right, depth, summed_at_once, block, accumulate);
  } else if (vectors == 2) {
    block_product<P, 2>(left, right, depth, summed_at_once, block, accumulate);
  } else {
    block_product<P, 1>(left, right, depth, summed_at_once, block, accumulate);
  }
}

struct TileExtent {
  std::int64_t row, rows;        // vectors of the left operand
  std::int64_t column, columns;  // vectors of the right operand
  std::int64_t depth, depth_end;
  bool triangular =
      false;  // a tile on the diagonal of a symmetric product: blocks above the diagonal are skipped
};

template <class P>
struct TileMemory {
  typename P::Entry* left;
  typename P::Entry* right;
  typename P::Number* blocks;
};

// A block of sums: where it begins, its place in the memory of all blocks, and how many registers of its rows
// are needed.
struct Block {
  std::int64_t row, column, index;
  int vectors;
};

// Calls visit(block) for each block that the tile needs, down all rows for some right panels after the other.
template <class T, class Visit>
ORTHO_INLINE void for_blocks(const TileExtent& tile, const Visit& visit) {
  std::int64_t index = 0;
  for (std::int64_t column = 0; column < tile.columns; column += block_columns<T>) {
    for (std::int64_t row = tile.triangular ? column : 0; row < tile.rows; row += block_rows) {
      std::int64_t columns = smaller(block_columns<T>, tile.columns - column);
      if (tile.triangular) columns = smaller(columns, row + block_rows - column);
      visit(Block{row, column, index++, static_cast<int>((columns + lanes<T> - 1) / lanes<T>)});
    }
  }
}

// How many numbers of memory a tile takes: the sums of all blocks, and the panels of both operands.
template <class T>
std::int64_t blocks_memory(std::int64_t rows, std::int64_t columns, bool triangular) {
  std::int64_t blocks = 0;
  for (std::int64_t column = 0; column < columns; column += block_columns<T>) {
    blocks += round_up(triangular ? rows - column : rows, block_rows) / block_rows;
  }
  return blocks * block_size<T>;
}
template <class T>
constexpr std::int64_t panels_memory(std::int64_t rows, std::int64_t columns, bool triangular) {
  return (packed<T>(rows) + (triangular ? 0 : packed<T>(columns))) * depth_chunk<PlainPanels<T>>;
}
// A tile may be taken either way round, which pads the other side.
template <class T>
std::int64_t tile_memory(std::int64_t rows, std::int64_t columns, bool triangular) {
  const std::int64_t upright = blocks_memory<T>(rows, columns, triangular);
  const std::int64_t turned = blocks_memory<T>(columns, rows, triangular);
  return panels_memory<T>(rows, columns, triangular) + (upright < turned ? turned : upright);
}

// Calls finish.prepare(block) before the last products of a block, and finish(block, sums) while its sums are
// in L1.
template <class P, class Left, class Right, class Finish>
void tile_product(const Left& left, const Right& right, const TileExtent& tile, const TileMemory<P>& memory,
                  std::int64_t summed_at_once, Finish& finish) {
  using T = typename P::Number;
  const std::int64_t depth = tile.depth_end - tile.depth;
  const std::int64_t chunks = depth <= 0 ? 1 : (depth + depth_chunk<P> - 1) / depth_chunk<P>;
  const std::int64_t even = round_up((depth + chunks - 1) / chunks, lanes<T>);
  for (std::int64_t c = 0; c < chunks; ++c) {
    const bool last = c + 1 == chunks;
    const std::int64_t begin = tile.depth + c * even, chunk = smaller(even, tile.depth_end - begin);
    const std::int64_t entries = entries_of<P>(chunk);
    left.pack(tile.row, tile.rows, begin, chunk, memory.left);
    const typename P::Entry* right_panels = memory.left;
    if (!tile.triangular) {
      right.pack(tile.column, tile.columns, begin, chunk, memory.right);
      right_panels = memory.right;
    }
    for_blocks<T>(tile, [&](const Block& block) {
      const Panels<P> a = panels_from<P>(memory.left, block.row, entries);
      const Panels<P> b = panels_from<P>(right_panels, block.column, entries);
      T* sums = memory.blocks + block.index * block_size<T>;
      if (last) finish.prepare(block);
      block_product<P>(block.vectors, a, b, chunk, summed_at_once, sums, c > 0);
      if (last) finish(block, sums);
    });
  }
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
