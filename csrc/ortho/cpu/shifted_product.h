// The gradient of a convolution's penalty, tile by tile: tap t gets the sum over taps u of S_(t - u) K_u,
// where S_d is the residual of the shift d as it was kept, and S_(-d) its transpose. All taps of some
// channels of some filters are computed together, so that each number of the gradient is written once.
#pragma once

#include "interleaved.h"
#include "kernels.h"
#include "lines.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// How many numbers the packed channels of one tap take.
template <class T>
std::int64_t tap_distance(const Convolution& kernel) {
  return packed<T>(kernel.channels) * kernel.filters;
}

// `channels` of all filters, from `first` on, as panels [tap][panel][filter][lane].
template <class T>
void pack_channels(const Convolution& kernel, std::int64_t first, std::int64_t channels, T* panels) {
  using P = PlainPanels<T>;
  panels += first * kernel.filters;
  with_storage<T>(kernel.storage, [&](auto storage) {
    using S = decltype(storage);
    if (is_interleaved(kernel, kernel)) {
      pack_interleaved_channels<P, S>(kernel, first, channels, panels, tap_distance<T>(kernel));
      return 0;
    }
    for (std::int64_t tap = 0; tap < taps_of(kernel); ++tap) {
      const S* base = static_cast<const S*>(kernel.data) + tap_offset(kernel, kernel, tap);
      const StridedOperand<P, S> operand{base, kernel.channel_stride, kernel.filter_stride};
      operand.pack(first, channels, 0, kernel.filters, panels + tap * tap_distance<T>(kernel));
    }
    return 0;
  });
}

// Where the parts of a tile's memory are: packed residuals of all shifts for a chunk of the filters, the
// sums of all taps, and a line of the gradient.
template <class T>
struct GradientMemory {
  std::int64_t chunk, shift_size, shifts_size, tap_size, sums_size, line_size;

  explicit GradientMemory(const ConvolutionGradientJob& job) {
    constexpr std::int64_t cached = 1 << 19;  // entries of the packed residuals that stay in L2
    const auto both_ways = 2 * job.shift_count;
    const std::int64_t vectors = packed<T>(job.rows);
    const std::int64_t fitting = cached / (both_ways * vectors + 1) / lanes<T> * lanes<T>;
    chunk = smaller(depth_chunk<PlainPanels<T>>, fitting < lanes<T> ? lanes<T> : fitting);
    shift_size = vectors * chunk;
    shifts_size = both_ways * shift_size;
    tap_size = blocks_memory<T>(job.rows, job.channels, false);
    sums_size = taps_of(job.kernel) * tap_size;
    line_size = round_up(job.channels * taps_of(job.kernel), lanes<T>);
  }
  std::int64_t size() const { return shifts_size + sums_size + line_size; }
};

template <class T>
std::int64_t convolution_gradient_memory(const ConvolutionGradientJob& job) {
  return GradientMemory<T>(job).size();
}

// The residuals of shift i and of its opposite for the rows of the tile, as panels [2 i + opposite].
template <class T>
void pack_residuals(const ConvolutionGradientJob& job, const GradientMemory<T>& sizes, std::int64_t from,
                    std::int64_t depth, T* panels) {
  using P = PlainPanels<T>;
  const std::int64_t filters = job.kernel.filters;
  for (std::int64_t i = 0; i < job.shift_count; ++i, panels += 2 * sizes.shift_size) {
    const T* residual = static_cast<const T*>(job.residuals) + job.shifts[i].residual;
    if (is_zero(job.shifts[i])) {
      SymmetricOperand<P>{residual}.pack(job.row, job.rows, from, depth, panels);
    } else {
      StridedOperand<P, T>{residual, filters, 1}.pack(job.row, job.rows, from, depth, panels);
      StridedOperand<P, T>{residual, 1, filters}.pack(job.row, job.rows, from, depth,
                                                      panels + sizes.shift_size);
    }
  }
}

// Calls visit(t, u, place of S_(t - u)) for all taps that a shift leads from one to the other.
template <class Visit>
ORTHO_INLINE void for_tap_pairs(const ConvolutionGradientJob& job, const Visit& visit) {
  const std::int64_t height = job.kernel.height, width = job.kernel.width;
  for (std::int64_t u = 0; u < height * width; ++u) {
    for (std::int64_t i = 0; i < job.shift_count; ++i) {
      const Shift& shift = job.shifts[i];
      for (int opposite = 0; opposite < (is_zero(shift) ? 1 : 2); ++opposite) {
        const std::int64_t y = u / width + (opposite ? -shift.dy : shift.dy);
        const std::int64_t x = u % width + (opposite ? -shift.dx : shift.dx);
        if (y >= 0 && y < height && x >= 0 && x < width) visit(y * width + x, u, 2 * i + opposite);
      }
    }
  }
}

// Writes the finished sums of the tile, or adds them.
template <class T, class S>
void write_taps(const ConvolutionGradientJob& job, const GradientMemory<T>& sizes, const T* sums, T* line) {
  const ConvolutionGradient& gradient = job.gradient;
  const std::int64_t taps = taps_of(job.kernel);
  const std::int64_t row_blocks = round_up(job.rows, block_rows) / block_rows;
  const bool interleaved = is_interleaved(job.kernel, gradient);
  const auto scale = static_cast<T>(job.scale);
  S* corner = static_cast<S*>(gradient.data) + job.row * gradient.filter_stride +
              job.channel * gradient.channel_stride;
  for (std::int64_t r = 0; r < job.rows; ++r) {
    S* target = corner + r * gradient.filter_stride;
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      for (std::int64_t c = 0; c < job.channels; c += block_columns<T>) {
        const std::int64_t block = c / block_columns<T> * row_blocks + r / block_rows;
        const T* own =
            sums + tap * sizes.tap_size + block * block_size<T> + r % block_rows * block_columns<T>;
        const std::int64_t columns = smaller(block_columns<T>, job.channels - c);
        if (interleaved) {
          for (std::int64_t i = 0; i < columns; ++i) line[(c + i) * taps + tap] = own[i];
        } else {
          write_line(target + tap_offset(job.kernel, gradient, tap) + c * gradient.channel_stride,
                     gradient.channel_stride, own, columns, scale, gradient.accumulate);
        }
      }
    }
    if (interleaved) write_line(target, 1, line, job.channels * taps, scale, gradient.accumulate);
  }
}

template <class T>
void convolution_gradient_tile(const ConvolutionGradientJob& job, T* memory) {
  using P = PlainPanels<T>;
  const GradientMemory<T> sizes(job);
  T* sums = memory + sizes.shifts_size;
  const TileExtent tile{job.row, job.rows, job.channel, job.channels, 0, 0};
  const std::int64_t filters = job.kernel.filters;
  clear(sums, sizes.sums_size);
  for (std::int64_t from = 0; from < filters; from += sizes.chunk) {
    const std::int64_t depth = smaller(sizes.chunk, filters - from);
    pack_residuals(job, sizes, from, depth, memory);
    for_tap_pairs(job, [&](std::int64_t t, std::int64_t u, std::int64_t place) {
      const T* residual = memory + place * sizes.shift_size;
      const T* channels = static_cast<const T*>(job.packed_channels) + u * tap_distance<T>(job.kernel);
      T* own = sums + t * sizes.tap_size;
      for_blocks<T>(tile, [&](const Block& block) {
        const auto a = panels_from<P>(residual, block.row, depth);
        const auto b = panels_from<P>(channels, job.channel + block.column, filters);
        block_product<P>(block.vectors, a, {b.first + from * width<P>, b.stride}, depth, depth,
                         own + block.index * block_size<T>, true);
      });
    });
  }
  with_storage<T>(job.kernel.storage, [&](auto storage) {
    write_taps<T, decltype(storage)>(job, sizes, sums, sums + sizes.sums_size);
    return 0;
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
