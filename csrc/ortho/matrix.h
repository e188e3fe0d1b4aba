// A matrix as the penalties see it: `order` vectors of `depth` numbers each, with any strides.
//
// The Gram is order x order. Which side of the weight it comes from, and whether the weight is stored by
// rows or by columns, shows in the two strides alone: no kernel below knows of sides.
#pragma once

#include <cstdint>

namespace ortho {

enum class Storage : std::uint8_t { float64, float32, bfloat16, float16 };

// Storage formats that the kernels convert from and to; arithmetic is done in float or double.
struct bfloat16 {
  std::uint16_t bits;
};
struct float16 {
  std::uint16_t bits;
};

struct Shape {
  std::int64_t order = 0;
  std::int64_t depth = 0;
};

struct Matrix {
  const void* data = nullptr;
  Storage storage = Storage::float32;
  Shape shape;
  std::int64_t order_stride = 0;
  std::int64_t depth_stride = 0;
};

// The gradient of a matrix: the same order and depth and storage format, strides of its own.
struct Gradient {
  void* data = nullptr;
  std::int64_t order_stride = 0;
  std::int64_t depth_stride = 0;
  bool accumulate = false;  // add to what is there instead of overwriting it
};

// Where row i of a packed lower triangle begins; also the number of entries of a triangle of order i.
static constexpr std::int64_t triangle(std::int64_t i) { return i * (i + 1) / 2; }

}  // namespace ortho
