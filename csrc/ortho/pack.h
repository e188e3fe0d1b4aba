// Packing: both operands of every product are copied to panels [panel][depth][panel_width] of the compute
// type, zeros in the place of missing vectors. After that the product kernel knows neither strides nor
// formats.
#pragma once

#include "simd.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class T>
constexpr int panel_width = 2 * lanes<T>;

constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Up to `lanes` vectors whose numbers lie next to each other along the depth: transposed on the way.
// `line(i)` is where vector i begins.
template <class T, class Line>
void pack_lines(const Line& line, std::int64_t count, std::int64_t depth, T* out) {
  constexpr int n = lanes<T>;
  for (std::int64_t d = 0; d < depth; d += n) {
    const std::int64_t left = smaller(n, depth - d);
    Vector<T> square[n];
    if (left == n && count == n) {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) square[i] = load<T>(line(i) + d);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        square[i] = i >= count  ? Vector<T>{}
                    : left == n ? load<T>(line(i) + d)
                                : load_some<T>(line(i) + d, left);
      }
    }
    transpose<T>(square);
    if (left == n) {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) store<T, T>(out + (d + i) * panel_width<T>, square[i]);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        if (i < left) store<T, T>(out + (d + i) * panel_width<T>, square[i]);
      }
    }
  }
}

// Up to `lanes` vectors that lie next to each other at each depth: copied. `row(d)` is where depth d begins.
template <class T, class Row>
void pack_rows(const Row& row, std::int64_t count, std::int64_t depth, T* out) {
  for (std::int64_t d = 0; d < depth; ++d) {
    store<T, T>(out + d * panel_width<T>, count == lanes<T> ? load<T>(row(d)) : load_some<T>(row(d), count));
  }
}

// Up to `lanes` vectors in any arrangement.
template <class T, class Element>
void pack_elements(const Element& element, std::int64_t count, std::int64_t depth, T* out) {
  for (std::int64_t d = 0; d < depth; ++d) {
    for (int i = 0; i < lanes<T>; ++i) out[d * panel_width<T> + i] = i < count ? element(i, d) : T(0);
  }
}

// Calls pack(first vector, number of vectors, where to) for each half panel.
template <class T, class Pack>
ORTHO_INLINE void for_half_panels(std::int64_t vectors, std::int64_t depth, T* out, const Pack& pack) {
  for (std::int64_t v = 0; v < round_up(vectors, panel_width<T>); v += lanes<T>) {
    const std::int64_t panel = v / panel_width<T>, offset = v % panel_width<T>;
    const std::int64_t count = v < vectors ? smaller(lanes<T>, vectors - v) : 0;
    pack(v, count, out + panel * depth * panel_width<T> + offset);
  }
}

// Vectors of a strided matrix.
template <class T, class S>
struct StridedOperand {
  const S* data;
  std::int64_t vector_stride, depth_stride;

  void pack(std::int64_t first, std::int64_t vectors, std::int64_t from, std::int64_t depth, T* out) const {
    const S* corner = data + first * vector_stride + from * depth_stride;
    if (vector_stride == 1 && depth_stride != 1) {
      pack_across(corner, vectors, depth, out);
      return;
    }
    for_half_panels(vectors, depth, out, [&](std::int64_t v, std::int64_t count, T* half) {
      const S* base = corner + v * vector_stride;
      if (depth_stride == 1) {
        pack_lines<T>([&](std::int64_t i) { return base + i * vector_stride; }, count, depth, half);
      } else {
        const auto element = [&](std::int64_t i, std::int64_t d) {
          return load_one<T>(base + i * vector_stride + d * depth_stride);
        };
        pack_elements<T>(element, count, depth, half);
      }
    });
  }

  // All panels side by side: memory is read in the order in which it lies.
  void pack_across(const S* corner, std::int64_t vectors, std::int64_t depth, T* out) const {
    for (std::int64_t d = 0; d < depth; ++d) {
      for_half_panels(
          vectors, depth, out + d * panel_width<T>, [&](std::int64_t v, std::int64_t count, T* half) {
            pack_rows<T>([&](std::int64_t) { return corner + d * depth_stride + v; }, count, 1, half);
          });
    }
  }
};

// Rows of a symmetric matrix of which only the packed lower triangle is stored. Left of the diagonal a row
// lies in one piece; right of it, it is a column of the triangle, whose numbers lie next to those of the
// neighbouring rows.
template <class T>
struct SymmetricOperand {
  const T* lower;

  void pack(std::int64_t first, std::int64_t vectors, std::int64_t from, std::int64_t depth, T* out) const {
    constexpr int n = lanes<T>;
    for_half_panels(vectors, depth, out, [&](std::int64_t v, std::int64_t count, T* half) {
      const std::int64_t row = first + v, end = from + depth;
      const std::int64_t diagonal_begin = row < from ? from : smaller(row, end);
      const std::int64_t diagonal_end = row + n < from ? from : smaller(row + n, end);
      const auto at = [&](std::int64_t column) { return half + (column - from) * panel_width<T>; };
      pack_lines<T>([&](std::int64_t i) { return lower + triangle(row + i) + from; }, count,
                    diagonal_begin - from, at(from));
      const auto element = [&](std::int64_t i, std::int64_t d) {
        const std::int64_t a = row + i, b = diagonal_begin + d;
        return a < b ? lower[triangle(b) + a] : lower[triangle(a) + b];
      };
      pack_elements<T>(element, count, diagonal_end - diagonal_begin, at(diagonal_begin));
      pack_rows<T>([&](std::int64_t d) { return lower + triangle(diagonal_end + d) + row; }, count,
                   end - diagonal_end, at(diagonal_end));
    });
  }
};

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
