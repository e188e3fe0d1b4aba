// Kernels in torch's default memory format: the taps of a channel lie next to each other, while the products
// want the channels of a tap. The two orders are exchanged a piece at a time, in L1.
#pragma once

#include "../convolution.h"
#include "panels.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// Where a tap lies in a kernel or its gradient.
template <class Strides>
ORTHO_INLINE std::int64_t tap_offset(const Convolution& kernel, const Strides& strides, std::int64_t tap) {
  return tap / kernel.width * strides.y_stride + tap % kernel.width * strides.x_stride;
}

// So many numbers of a filter at a time: whole channels.
constexpr std::int64_t interleaved_entries = 256;

// Of a kernel or its gradient.
template <class Strides>
bool is_interleaved(const Convolution& kernel, const Strides& strides) {
  const std::int64_t taps = taps_of(kernel);
  return taps > 1 && taps <= interleaved_entries && strides.x_stride == 1 &&
         strides.y_stride == kernel.width && strides.channel_stride == taps;
}

// Calls visit(first channel, channels) for each piece.
template <class Visit>
ORTHO_INLINE void for_pieces(const Convolution& kernel, std::int64_t channels, const Visit& visit) {
  const std::int64_t piece = interleaved_entries / taps_of(kernel);
  for (std::int64_t c = 0; c < channels; c += piece) visit(c, smaller(piece, channels - c));
}

// Up to `lanes` filters, of which `corner` is the first, as a panel [tap][channel][lane].
template <class P, class S>
void pack_interleaved_filters(const Convolution& kernel, const S* corner, std::int64_t count,
                              typename P::Number* panel) {
  using T = typename P::Number;
  const std::int64_t taps = taps_of(kernel);
  T piece[interleaved_entries * lanes<T>];
  for_pieces(kernel, kernel.channels, [&](std::int64_t first, std::int64_t channels) {
    const auto line = [&](std::int64_t i) { return corner + i * kernel.filter_stride + first * taps; };
    pack_lines<P>(line, count, channels * taps, piece);
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      T* out = panel + (tap * kernel.channels + first) * lanes<T>;
      for (std::int64_t c = 0; c < channels; ++c, out += lanes<T>)
        store<T, T>(out, load<T>(piece + (c * taps + tap) * lanes<T>));
    }
  });
}

// `channels` of all filters, from `first` on, as panels [panel][filter][lane] for each tap, which are
// `tap_distance` apart. Missing channels are zero.
template <class P, class S>
void pack_interleaved_channels(const Convolution& kernel, std::int64_t first, std::int64_t channels,
                               typename P::Number* panels, std::int64_t tap_distance) {
  using T = typename P::Number;
  const std::int64_t taps = taps_of(kernel), entries = lanes<T> * taps;
  const auto read = [&](const S* line, std::int64_t count, T* numbers) {
    std::int64_t i = 0;
    for (; i + lanes<T> <= count; i += lanes<T>) store<T, T>(numbers + i, load<T>(line + i));
    if (i < count) store<T, T>(numbers + i, load_some<T>(line + i, count - i));
  };
  T numbers[interleaved_entries * lanes<T>];
  for_panels<P>(channels, kernel.filters, panels, [&](std::int64_t c, std::int64_t count, T* panel) {
    for (std::int64_t i = count * taps; i < entries; ++i) numbers[i] = T(0);
    const S* line = static_cast<const S*>(kernel.data) + (first + c) * taps;
    for (std::int64_t filter = 0; filter < kernel.filters; ++filter, line += kernel.filter_stride) {
      __builtin_prefetch(line + rows_ahead * kernel.filter_stride);
      read(line, count * taps, numbers);
      for (std::int64_t tap = 0; tap < taps; ++tap) {
        T* out = panel + tap * tap_distance + filter * lanes<T>;
        for (int lane = 0; lane < lanes<T>; ++lane) out[lane] = numbers[lane * taps + tap];
      }
    }
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
