// The residual R = Gram - I of one matrix, tile by tile of its lower triangle.
#pragma once

#include "cpu_kernels.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// Takes finished blocks of the Gram: subtracts the identity, sums the squares, keeps the weighted entries.
template <class T, class Kept>
struct ResidualBlocks {
  const ResidualJob& job;
  const TileExtent& tile;
  SquaredSums sums{};

  void operator()(std::int64_t block_row, std::int64_t block_column, T* block) {
    const std::int64_t rows = smaller(block_rows, tile.rows - block_row);
    const std::int64_t columns = smaller(panel_width<T>, tile.columns - block_column);
    Vector<T> squares{};
    T squares_at_edge = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* entries = block + r * panel_width<T>;
      const std::int64_t row = tile.row + block_row + r;
      const std::int64_t column = tile.column + block_column;
      const std::int64_t before_diagonal = smaller(columns, row - column);
      Kept* kept = job.residual ? static_cast<Kept*>(job.residual) + triangle(row) + column : nullptr;
      std::int64_t c = 0;
      for (; c + lanes<T> <= before_diagonal; c += lanes<T>) {
        const Vector<T> entry = load<T>(entries + c);
        squares += entry * entry;
        if (kept) store<Kept, T>(kept + c, entry * broadcast(static_cast<T>(job.off_diagonal)));
      }
      for (; c < before_diagonal; ++c) {
        squares_at_edge += entries[c] * entries[c];
        if (kept) kept[c] = static_cast<Kept>(entries[c] * static_cast<T>(job.off_diagonal));
      }
      if (c == row - column && c < columns) {
        const T entry = entries[c] - T(1);
        sums.diagonal += static_cast<double>(entry) * static_cast<double>(entry);
        if (kept) kept[c] = static_cast<Kept>(entry * static_cast<T>(job.diagonal));
      }
    }
    sums.below_diagonal += static_cast<double>(sum_of_lanes<T>(squares) + squares_at_edge);
  }
};

template <class T>
TileExtent extent_of(const ResidualTile& tile) {
  return {
      tile.row, tile.rows, tile.column, tile.columns, tile.depth, tile.depth_end, tile.row == tile.column};
}

template <class T, class S, class Finish>
void gram_tile(const ResidualJob& job, T* memory, T* blocks, const Finish& finish) {
  const Matrix& matrix = job.matrix;
  const TileExtent tile = extent_of<T>(job.tile);
  const StridedOperand<T, S> vectors{static_cast<const S*>(matrix.data), matrix.order_stride,
                                     matrix.depth_stride};
  T* right = memory + round_up(tile.rows, panel_width<T>) * depth_chunk<T>;
  tile_product<T>(vectors, vectors, tile, TileMemory<T>{memory, right, blocks}, finish);
}

template <class T, class Kept, class S>
SquaredSums whole_residual_tile(const ResidualJob& job, T* memory) {
  const TileExtent tile = extent_of<T>(job.tile);
  ResidualBlocks<T, Kept> blocks{job, tile};
  T* sums = memory + panels_size<T>(tile.rows, tile.columns);
  gram_tile<T, S>(job, memory, sums, [&](std::int64_t r, std::int64_t c, T* block) { blocks(r, c, block); });
  return blocks.sums;
}

template <class T>
SquaredSums residual_tile(const ResidualJob& job, T* memory) {
  return with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    if constexpr (std::is_same_v<T, double>) {
      if (job.kept_as_float) return whole_residual_tile<T, float, S>(job, memory);
    }
    return whole_residual_tile<T, T, S>(job, memory);
  });
}

// The Gram blocks of a part of the depth only; `partial` has room for the blocks of the whole tile.
template <class T>
void residual_part(const ResidualJob& job, T* memory, T* partial) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    gram_tile<T, decltype(storage)>(job, memory, partial, [](std::int64_t, std::int64_t, T*) {});
    return SquaredSums{};
  });
}

// Adds up the parts of a tile, always in the same order, and finishes it.
template <class T>
SquaredSums residual_from_parts(const ResidualJob& job, T* partials, std::int64_t parts,
                                std::int64_t part_size) {
  const TileExtent tile = extent_of<T>(job.tile);
  const auto finish_all = [&](auto& finish) {
    for_blocks<T>(tile, [&](std::int64_t row, std::int64_t column, std::int64_t index) {
      T* block = partials + index * block_size<T>;
      for (std::int64_t part = 1; part < parts; ++part) {
        for (int i = 0; i < block_size<T>; i += lanes<T>) {
          store<T, T>(block + i, load<T>(block + i) + load<T>(block + part * part_size + i));
        }
      }
      finish(row, column, block);
    });
    return finish.sums;
  };
  if constexpr (std::is_same_v<T, double>) {
    if (job.kept_as_float) {
      ResidualBlocks<T, float> blocks{job, tile};
      return finish_all(blocks);
    }
  }
  ResidualBlocks<T, T> blocks{job, tile};
  return finish_all(blocks);
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
