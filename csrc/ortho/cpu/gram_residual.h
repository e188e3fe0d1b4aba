// The residual R = Gram - I, or the Gram, of one matrix, tile by tile of its lower triangle.
#pragma once

#include "kernels.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// R is a difference of nearly equal numbers: the rounding of long float sums would show in it.
constexpr std::int64_t gram_summed_at_once = 64;

// Takes finished blocks of the Gram: subtracts the identity, sums the squares, keeps the weighted entries.
template <class T, class Kept>
struct ResidualBlocks {
  const ResidualJob& job;
  const TileExtent& tile;
  SquaredSums sums{};

  void prepare(const Block&) const {}

  void operator()(const Block& block, const T* gram) {
    const std::int64_t rows = smaller(block_rows, tile.rows - block.row);
    const std::int64_t columns = smaller(block_columns<T>, tile.columns - block.column);
    Vector<T> squares{};
    T squares_at_edge = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* entries = gram + r * block_columns<T>;
      const std::int64_t row = tile.row + block.row + r;
      const std::int64_t column = tile.column + block.column;
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
        const T entry = entries[c] - static_cast<T>(job.form.identity);
        sums.diagonal += static_cast<double>(entry) * static_cast<double>(entry);
        if (kept) kept[c] = static_cast<Kept>(entry * static_cast<T>(job.diagonal));
      }
    }
    sums.below_diagonal += static_cast<double>(sum_of_lanes<T>(squares) + squares_at_edge);
  }
};

template <class T>
TileExtent extent_of(const ResidualTile& tile) {
  return {tile.row, tile.rows, tile.column, tile.columns, tile.depth, tile.depth_end, on_diagonal(tile)};
}

template <class T, class S, class Finish>
void gram_tile(const ResidualJob& job, T* memory, T* blocks, Finish& finish) {
  const Matrix& matrix = job.matrix;
  const TileExtent tile = extent_of<T>(job.tile);
  using P = PlainPanels<T>;
  const ScaledOperand<P, StridedOperand<P, S>> vectors{
      {static_cast<const S*>(matrix.data), matrix.order_stride, matrix.depth_stride}, job.form.line_scales};
  T* right = memory + packed<T>(tile.rows) * depth_chunk<P>;
  tile_product<P>(vectors, vectors, tile, {memory, right, blocks}, gram_summed_at_once, finish);
}

template <class T, class Kept, class S>
SquaredSums whole_residual_tile(const ResidualJob& job, T* memory) {
  const TileExtent tile = extent_of<T>(job.tile);
  ResidualBlocks<T, Kept> blocks{job, tile};
  T* sums = memory + panels_memory<T>(tile.rows, tile.columns, tile.triangular);
  gram_tile<T, S>(job, memory, sums, blocks);
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

struct KeepBlocks {
  void prepare(const Block&) const {}
  template <class T>
  void operator()(const Block&, const T*) const {}
};

// The Gram blocks of a part of the depth only; `partial` has room for the blocks of the whole tile.
template <class T>
void residual_part(const ResidualJob& job, T* memory, T* partial) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    KeepBlocks keep;
    gram_tile<T, decltype(storage)>(job, memory, partial, keep);
    return SquaredSums{};
  });
}

// Adds up the parts of a tile, always in the same order, and finishes it.
template <class T>
SquaredSums residual_from_parts(const ResidualJob& job, T* partials, std::int64_t parts,
                                std::int64_t part_size) {
  const TileExtent tile = extent_of<T>(job.tile);
  const auto finish_all = [&](auto& finish) {
    for_blocks<T>(tile, [&](const Block& block) {
      T* sums = partials + block.index * block_size<T>;
      for (std::int64_t part = 1; part < parts; ++part) {
        for (int i = 0; i < block_size<T>; i += lanes<T>) {
          if (i % block_columns<T> >= block.vectors * lanes<T>) continue;
          store<T, T>(sums + i, load<T>(sums + i) + load<T>(sums + part * part_size + i));
        }
      }
      finish(block, sums);
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
