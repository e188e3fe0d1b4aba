// A convolution's kernel as its penalty sees it, and the shifts between two of its filters.
#pragma once

#include <cstdint>

#include "matrix.h"

namespace ortho {

// `filters` filters of channels x height x width numbers. A tap is a place (y, x) of the kernel.
struct Convolution {
  const void* data = nullptr;
  Storage storage = Storage::float32;
  std::int64_t filters = 0, channels = 0, height = 1, width = 1;
  std::int64_t filter_stride = 0, channel_stride = 0, y_stride = 0, x_stride = 0;
};

// The gradient of a kernel: the same sizes and storage format, strides of its own.
struct ConvolutionGradient {
  void* data = nullptr;
  std::int64_t filter_stride = 0, channel_stride = 0, y_stride = 0, x_stride = 0;
  bool accumulate = false;  // add to what is there instead of overwriting it
};

static constexpr std::int64_t taps_of(const Convolution& kernel) { return kernel.height * kernel.width; }

// Z_(dy, dx) = sum over taps t of K_(t + (dy, dx)) K_t^T, filters x filters numbers. The shift (-dy, -dx) has
// its transpose, so one of the two stands for both: it is held against the identity `identity` times, and
// against zero `zero` times.
struct Shift {
  std::int64_t dy, dx;
  std::int64_t identity = 0, zero = 0;
  std::int64_t residual = 0;  // where its residual begins among those of all shifts
};

// Its product is symmetric, and of its residual only the packed lower triangle is kept.
static constexpr bool is_zero(const Shift& shift) { return shift.dy == 0 && shift.dx == 0; }

}  // namespace ortho
