// The residual of one shift of a convolution, tile by tile: products of filters with shifted filters. Packed
// filters have their taps before their channels, so that the taps in which two of them overlap are runs of
// neighboring numbers, and nothing is copied for a shift.
#pragma once

#include "gram_residual.h"
#include "interleaved.h"
#include "kernels.h"
#include "lines.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

inline std::int64_t numbers_of_filter(const Convolution& kernel) { return taps_of(kernel) * kernel.channels; }

// `filters` filters from `first` on, as panels [panel][tap][channel][lane].
template <class T>
void pack_filters(const Convolution& kernel, std::int64_t first, std::int64_t filters, T* panels) {
  using P = PlainPanels<T>;
  panels += first * numbers_of_filter(kernel);
  with_storage<T>(kernel.storage, [&](auto storage) {
    using S = decltype(storage);
    const S* corner = static_cast<const S*>(kernel.data) + first * kernel.filter_stride;
    for_panels<P>(
        filters, numbers_of_filter(kernel), panels, [&](std::int64_t filter, std::int64_t count, T* panel) {
          const S* own = corner + filter * kernel.filter_stride;
          if (is_interleaved(kernel, kernel)) {
            pack_interleaved_filters<P>(kernel, own, count, panel);
            return;
          }
          for (std::int64_t tap = 0; tap < taps_of(kernel); ++tap, panel += kernel.channels * width<P>) {
            const S* base = own + tap_offset(kernel, kernel, tap);
            if (kernel.channel_stride == 1) {
              const auto line = [&](std::int64_t i) { return base + i * kernel.filter_stride; };
              pack_lines<P>(line, count, kernel.channels, panel);
            } else {
              const auto element = [&](std::int64_t i, std::int64_t c) {
                return load_one<T>(base + i * kernel.filter_stride + c * kernel.channel_stride);
              };
              pack_elements<P>(element, count, kernel.channels, panel);
            }
          }
        });
    return 0;
  });
}

// Calls visit(left, right, length) for each run: entries of the filter whose taps are shifted, and of the
// other. No run is longer than a chunk of the depth.
template <class T, class Visit>
ORTHO_INLINE void for_runs(const Convolution& kernel, const Shift& shift, const Visit& visit) {
  const std::int64_t across = kernel.width - (shift.dx < 0 ? -shift.dx : shift.dx);
  const std::int64_t down = kernel.height - (shift.dy < 0 ? -shift.dy : shift.dy);
  if (across <= 0 || down <= 0) return;
  const bool whole_rows = shift.dx == 0;  // they follow each other
  const std::int64_t runs = whole_rows ? 1 : down;
  const std::int64_t length = (whole_rows ? down : 1) * across * kernel.channels;
  const std::int64_t pieces = (length + depth_chunk<PlainPanels<T>> - 1) / depth_chunk<PlainPanels<T>>;
  const std::int64_t line = kernel.width * kernel.channels;
  std::int64_t left = (shift.dy > 0 ? shift.dy : 0) * line + (shift.dx > 0 ? shift.dx : 0) * kernel.channels;
  std::int64_t right =
      (shift.dy < 0 ? -shift.dy : 0) * line + (shift.dx < 0 ? -shift.dx : 0) * kernel.channels;
  for (std::int64_t run = 0; run < runs; ++run, left += line, right += line) {
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      const std::int64_t begin = piece * length / pieces, end = (piece + 1) * length / pieces;
      visit(left + begin, right + begin, end - begin);
    }
  }
}

// Takes finished blocks of Z: holds them against the identity and zero, and keeps half of the derivative.
template <class T, class Kept>
struct ShiftBlocks {
  const ShiftJob& job;
  double on_diagonal = 0, off_diagonal = 0;

  void operator()(const Block& block, const T* product) {
    const ShiftTile& tile = job.tile;
    const bool triangular = is_zero(job.shift);
    const double twice = triangular ? 2 : 1;  // what the zero shift's triangle counts
    const double counted = twice * static_cast<double>(job.shift.identity + job.shift.zero);
    const std::int64_t rows = smaller(block_rows, tile.rows - block.row);
    const std::int64_t columns = smaller(block_columns<T>, tile.columns - block.column);
    const std::int64_t column = tile.column + block.column;
    Vector<T> squares{};
    T squares_at_edge = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      const T* entries = product + r * block_columns<T>;
      const std::int64_t row = tile.row + block.row + r, diagonal = row - column;
      const std::int64_t begin = triangular ? triangle(row) : row * job.kernel.filters;
      Kept* kept = job.residual ? static_cast<Kept*>(job.residual) + begin + column : nullptr;
      const auto off = [&](std::int64_t c, std::int64_t end) {
        for (; c + lanes<T> <= end; c += lanes<T>) {
          const Vector<T> entry = load<T>(entries + c);
          squares += entry * entry;
          if (kept) store<Kept, T>(kept + c, entry * broadcast(static_cast<T>(counted)));
        }
        for (; c < end; ++c) {
          squares_at_edge += entries[c] * entries[c];
          if (kept) kept[c] = static_cast<Kept>(entries[c] * static_cast<T>(counted));
        }
      };
      off(0, smaller(columns, diagonal));
      if (diagonal >= 0 && diagonal < columns) {
        const T entry = entries[diagonal];
        const auto identity = static_cast<double>(job.shift.identity),
                   zero = static_cast<double>(job.shift.zero);
        const auto z = static_cast<double>(entry), residual = static_cast<double>(entry - T(1));
        on_diagonal += identity * residual * residual + zero * z * z;
        if (kept) kept[diagonal] = static_cast<Kept>(twice * (identity * residual + zero * z));
      }
      if (!triangular) off(diagonal < 0 ? 0 : diagonal + 1, columns);
    }
    off_diagonal += counted * static_cast<double>(sum_of_lanes<T>(squares) + squares_at_edge);
  }
};

template <class T, class Kept>
double kept_shift_tile(const ShiftJob& job, T* blocks) {
  using P = PlainPanels<T>;
  const ShiftTile& own = job.tile;
  const bool triangular = is_zero(job.shift) && own.row == own.column;
  const TileExtent tile{own.row, own.rows, own.column, own.columns, 0, 0, triangular};
  const T* filters = static_cast<const T*>(job.filters);
  const std::int64_t entries = numbers_of_filter(job.kernel);
  bool accumulate = false;
  const auto add_run = [&](std::int64_t left, std::int64_t right, std::int64_t length) {
    for_blocks<T>(tile, [&](const Block& block) {
      const auto a = panels_from<P>(filters, tile.row + block.row, entries);
      const auto b = panels_from<P>(filters, tile.column + block.column, entries);
      block_product<P>(block.vectors, {a.first + left * width<P>, a.stride},
                       {b.first + right * width<P>, b.stride}, length, gram_summed_at_once,
                       blocks + block.index * block_size<T>, accumulate);
    });
    accumulate = true;
  };
  for_runs<T>(job.kernel, job.shift, add_run);
  if (!accumulate) clear(blocks, blocks_memory<T>(tile.rows, tile.columns, triangular));  // no overlap
  ShiftBlocks<T, Kept> finish{job};
  for_blocks<T>(tile, [&](const Block& block) { finish(block, blocks + block.index * block_size<T>); });
  return finish.on_diagonal + finish.off_diagonal;
}

template <class T>
double shift_tile(const ShiftJob& job, T* memory) {
  if constexpr (std::is_same_v<T, double>) {
    if (job.kept_as_float) return kept_shift_tile<T, float>(job, memory);
  }
  return kept_shift_tile<T, T>(job, memory);
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
