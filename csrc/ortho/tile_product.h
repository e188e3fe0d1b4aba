// One tile of a product A B^T, in the way of Goto and van de Geijn: panels of both operands are packed for a
// chunk of the depth, so that they and the sums stay in L2, and a register-blocked kernel runs over all
// blocks. The residual (A = B = W) and the backward product (R times W) both come down to this.
#pragma once

#include "pack.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class T>
constexpr int depth_chunk = 1024 / static_cast<int>(sizeof(T));
template <class T>
constexpr int block_size = block_rows * panel_width<T>;

// The rounding error of a sum grows with its length: sums of this many products are formed apart and then
// added.
constexpr std::int64_t summed_at_once = 64;

// block[r][c] (+)= sum over d of a[d][r] * b[d][c]; a and b are columns of panels.
template <class T>
void block_product(const T* a, const T* b, std::int64_t depth, T* block, bool accumulate) {
  constexpr int n = lanes<T>;
  do {
    const std::int64_t some = smaller(depth, summed_at_once);
    Vector<T> sums[block_rows][2] = {};
    for (std::int64_t d = 0; d < some; ++d) {
      const Vector<T> left = load<T>(b), right = load<T>(b + n);
#pragma GCC unroll 8
      for (int r = 0; r < block_rows; ++r) {
        const Vector<T> factor = broadcast(a[r]);
        sums[r][0] += factor * left;
        sums[r][1] += factor * right;
      }
      a += panel_width<T>;
      b += panel_width<T>;
    }
#pragma GCC unroll 8
    for (int r = 0; r < block_rows; ++r) {
      for (int half = 0; half < 2; ++half) {
        T* target = block + r * panel_width<T> + half * n;
        store<T, T>(target, accumulate ? sums[r][half] + load<T>(target) : sums[r][half]);
      }
    }
    accumulate = true;
    depth -= some;
  } while (depth > 0);
}

struct TileExtent {
  std::int64_t row, rows;        // vectors of the left operand
  std::int64_t column, columns;  // vectors of the right operand
  std::int64_t depth, depth_end;
  bool triangular =
      false;  // a tile on the diagonal of a symmetric product: blocks above the diagonal are skipped
};

template <class T>
struct TileMemory {
  T* left;
  T* right;
  T* blocks;
};

// How many numbers of memory a tile takes: the panels of both operands, and the sums of all blocks.
template <class T>
constexpr std::int64_t panels_size(std::int64_t rows, std::int64_t columns) {
  return (round_up(rows, panel_width<T>) + round_up(columns, panel_width<T>)) * depth_chunk<T>;
}
template <class T>
constexpr std::int64_t blocks_memory(std::int64_t rows, std::int64_t columns) {
  return round_up(rows, block_rows) * round_up(columns, panel_width<T>);
}
// A tile may be taken either way round, which pads the other side.
template <class T>
constexpr std::int64_t tile_memory(std::int64_t rows, std::int64_t columns) {
  const std::int64_t upright = blocks_memory<T>(rows, columns), turned = blocks_memory<T>(columns, rows);
  return panels_size<T>(rows, columns) + (upright < turned ? turned : upright);
}

// Calls visit(row, column, block index) for each block that the tile needs.
template <class T, class Visit>
ORTHO_INLINE void for_blocks(const TileExtent& tile, const Visit& visit) {
  const std::int64_t across = round_up(tile.columns, panel_width<T>) / panel_width<T>;
  for (std::int64_t row = 0; row < tile.rows; row += block_rows) {
    for (std::int64_t column = 0; column < tile.columns; column += panel_width<T>) {
      if (tile.triangular && column >= row + block_rows) break;
      visit(row, column, (row / block_rows) * across + column / panel_width<T>);
    }
  }
}

// finish(row, column, block) gets each finished block while it is in L1.
template <class T, class Left, class Right, class Finish>
void tile_product(const Left& left, const Right& right, const TileExtent& tile, const TileMemory<T>& memory,
                  const Finish& finish) {
  std::int64_t begin = tile.depth;
  bool first = true, last = false;
  while (!last) {
    const std::int64_t chunk = smaller(depth_chunk<T>, tile.depth_end - begin);
    last = begin + chunk >= tile.depth_end;
    left.pack(tile.row, tile.rows, begin, chunk, memory.left);
    const T* right_panels = memory.left;
    if (!tile.triangular) {
      right.pack(tile.column, tile.columns, begin, chunk, memory.right);
      right_panels = memory.right;
    }
    for_blocks<T>(tile, [&](std::int64_t row, std::int64_t column, std::int64_t index) {
      const T* a = memory.left + row / panel_width<T> * chunk * panel_width<T> + row % panel_width<T>;
      T* block = memory.blocks + index * block_size<T>;
      block_product<T>(a, right_panels + column * chunk, chunk, block, !first);
      if (last) finish(row, column, block);
    });
    begin += chunk;
    first = false;
  }
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
