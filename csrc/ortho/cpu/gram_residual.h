// The residual R = Gram - I, or the Gram, of one matrix, tile by tile of its lower triangle.
#pragma once

#include "gram_tile.h"

namespace ortho::ORTHO_LEVEL {
namespace {

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

template <class T, class Kept, class S>
SquaredSums whole_residual_tile(const ResidualJob& job, T* memory) {
  const TileExtent tile = extent_of(job.tile);
  ResidualBlocks<T, Kept> blocks{job, tile};
  T* sums = memory + panels_memory<T>(tile.rows, tile.columns, tile.triangular);
  gram_tile<T, S>(job.matrix, job.matrix, job.form.line_scales, tile, memory, sums, blocks);
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

template <class T>
void residual_part(const ResidualJob& job, T* memory, T* partial) {
  gram_part(job.matrix, job.matrix, job.form.line_scales, job.tile, memory, partial);
}

template <class T>
SquaredSums residual_from_parts(const ResidualJob& job, T* partials, std::int64_t parts,
                                std::int64_t part_size) {
  const TileExtent tile = extent_of(job.tile);
  if constexpr (std::is_same_v<T, double>) {
    if (job.kept_as_float) {
      ResidualBlocks<T, float> blocks{job, tile};
      finish_parts(tile, partials, parts, part_size, blocks);
      return blocks.sums;
    }
  }
  ResidualBlocks<T, T> blocks{job, tile};
  finish_parts(tile, partials, parts, part_size, blocks);
  return blocks.sums;
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
