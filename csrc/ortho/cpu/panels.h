// Packing: both operands of every product are copied to panels [panel][depth][lanes], each a register wide,
// zeros in the place of missing vectors. After that the product kernel knows neither strides nor formats,
// reads both operands in the order in which they lie, and can take either side of a symmetric product from
// the same panels.
#pragma once

#include "simd.h"

namespace ortho::ORTHO_LEVEL {
namespace {

constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}
constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// ---- how numbers stand in a panel ------------------------------------------------------------------------
// Rows of a panel are written two at a time: `put(out, even, odd, both)`, where out is the place of the even
// one.

// As they are computed with: one entry a number.
template <class T>
struct PlainPanels {
  using Number = T;
  using Entry = T;
  static constexpr int depth_of_entry = 1;

  static void put(Entry* out, Vector<T> even, Vector<T> odd, bool both) {
    store<T, T>(out, even);
    if (both) store<T, T>(out + lanes<T>, odd);
  }
  static ORTHO_INLINE Vector<T> multiply_add(Entry factor, const Entry* entries, Vector<T> sum) {
    return sum + broadcast(factor) * load<T>(entries);
  }
};

#ifdef __AVX512BF16__
// Rounded to bfloat16: an entry holds the numbers of two neighboring depths.
struct BfloatPanels {
  using Number = float;
  using Entry = std::uint32_t;
  static constexpr int depth_of_entry = 2;

  static void put(Entry* out, Vector<float> even, Vector<float> odd, bool) {
    store_bfloat_pairs(out, even, odd);
  }
  static ORTHO_INLINE Vector<float> multiply_add(Entry factor, const Entry* entries, Vector<float> sum) {
    return add_bfloat_products(factor, entries, sum);
  }
};
#endif

template <class P>
constexpr int width = lanes<typename P::Number>;

// A chunk of the depth, and how many entries one vector of it takes.
template <class P>
constexpr int depth_chunk = chunk_bytes / static_cast<int>(sizeof(typename P::Number)) * P::depth_of_entry;
template <class P>
constexpr std::int64_t entries_of(std::int64_t depth) {
  return (depth + P::depth_of_entry - 1) / P::depth_of_entry;
}

// So many vectors are packed, at least: whole panels, and whole blocks.
template <class T>
constexpr std::int64_t packed(std::int64_t vectors) {
  return round_up(vectors, lanes<T> < block_rows ? block_rows : lanes<T>);
}

// ---- packing one panel -----------------------------------------------------------------------------------
// Depths begin at even numbers.

// Packing waits for memory more than it works. The hardware predicts long runs; a matrix is many short ones.
constexpr int lines_ahead = 4, rows_ahead = 8;

template <class P>
ORTHO_INLINE typename P::Entry* at_depth(typename P::Entry* panel, std::int64_t depth) {
  return panel + depth / P::depth_of_entry * width<P>;
}

// Up to `lanes` vectors whose numbers lie next to each other along the depth: transposed on the way.
// `line(i)` is where vector i begins.
template <class P, class Line>
void pack_lines(const Line& line, std::int64_t count, std::int64_t depth, typename P::Entry* out) {
  using T = typename P::Number;
  constexpr int n = lanes<T>;
  for (std::int64_t d = 0; d < depth; d += n) {
    const std::int64_t left = smaller(n, depth - d);
    Vector<T> square[n];
    if (left == n && count == n) {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        __builtin_prefetch(line(i) + d + lines_ahead * n);
        square[i] = load<T>(line(i) + d);
      }
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
      for (int i = 0; i < n; i += 2) P::put(at_depth<P>(out, d + i), square[i], square[i + 1], true);
    } else {
#pragma GCC unroll 16
      for (int i = 0; i < n; i += 2) {
        if (i < left) P::put(at_depth<P>(out, d + i), square[i], square[i + 1], i + 1 < left);
      }
    }
  }
}

// Up to `lanes` vectors that lie next to each other at each depth: copied. `row(d)` is where depth d begins.
template <class P, class Row>
ORTHO_INLINE void pack_rows(const Row& row, std::int64_t count, std::int64_t depth, typename P::Entry* out) {
  using T = typename P::Number;
  const auto read = [&](std::int64_t d) {
    __builtin_prefetch(row(d + rows_ahead));
    return count == lanes<T> ? load<T>(row(d)) : load_some<T>(row(d), count);
  };
  for (std::int64_t d = 0; d < depth; d += 2) {
    const bool both = d + 1 < depth;
    P::put(at_depth<P>(out, d), read(d), both ? read(d + 1) : Vector<T>{}, both);
  }
}

// Up to `lanes` vectors in any arrangement.
template <class P, class Element>
void pack_elements(const Element& element, std::int64_t count, std::int64_t depth, typename P::Entry* out) {
  using T = typename P::Number;
  for (std::int64_t d = 0; d < depth; d += 2) {
    T pair[2][lanes<T>] = {};
    for (std::int64_t odd = 0; odd < smaller(2, depth - d); ++odd) {
      for (std::int64_t i = 0; i < count; ++i) pair[odd][i] = element(i, d + odd);
    }
    P::put(at_depth<P>(out, d), load<T>(pair[0]), load<T>(pair[1]), d + 1 < depth);
  }
}

// Calls pack(first vector, number of vectors, where to) for each panel.
template <class P, class Pack>
ORTHO_INLINE void for_panels(std::int64_t vectors, std::int64_t depth, typename P::Entry* out,
                             const Pack& pack) {
  for (std::int64_t v = 0; v < packed<typename P::Number>(vectors); v += width<P>) {
    const std::int64_t count = v < vectors ? smaller(width<P>, vectors - v) : 0;
    pack(v, count, out + v * entries_of<P>(depth));
  }
}

// ---- operands ----------------------------------------------------------------------------------------

// Vectors of a strided matrix.
template <class P, class S>
struct StridedOperand {
  using T = typename P::Number;
  const S* data;
  std::int64_t vector_stride, depth_stride;

  void pack(std::int64_t first, std::int64_t vectors, std::int64_t from, std::int64_t depth,
            typename P::Entry* out) const {
    const S* corner = data + first * vector_stride + from * depth_stride;
    if (vector_stride == 1 && depth_stride != 1) {
      pack_across(corner, vectors, depth, out);
      return;
    }
    for_panels<P>(vectors, depth, out, [&](std::int64_t v, std::int64_t count, typename P::Entry* panel) {
      const S* base = corner + v * vector_stride;
      if (depth_stride == 1) {
        pack_lines<P>([&](std::int64_t i) { return base + i * vector_stride; }, count, depth, panel);
      } else {
        const auto element = [&](std::int64_t i, std::int64_t d) {
          return load_one<T>(base + i * vector_stride + d * depth_stride);
        };
        pack_elements<P>(element, count, depth, panel);
      }
    });
  }

  // All panels side by side: memory is read in the order in which it lies.
  void pack_across(const S* corner, std::int64_t vectors, std::int64_t depth, typename P::Entry* out) const {
    constexpr int n = lanes<T>;
    const std::int64_t whole = vectors / n * n;
    for (std::int64_t d = 0; d < depth; d += 2) {
      const bool both = d + 1 < depth;
      const S* even = corner + d * depth_stride;
      const S* odd = even + depth_stride;
      typename P::Entry* target = at_depth<P>(out, d);
      const auto put = [&](std::int64_t v, const auto& read) {
        P::put(target + v * entries_of<P>(depth), read(even + v), both ? read(odd + v) : Vector<T>{}, both);
      };
      for (std::int64_t v = 0; v < whole; v += n) {
        __builtin_prefetch(even + rows_ahead * depth_stride + v);
        __builtin_prefetch(odd + rows_ahead * depth_stride + v);
        put(v, [](const S* row) { return load<T>(row); });
      }
      for (std::int64_t v = whole; v < packed<T>(vectors); v += n) {
        put(v, [&](const S* row) { return load_some<T>(row, v < vectors ? vectors - v : 0); });
      }
    }
  }
};

// Those of an operand, with a factor at each depth; null: 1.
template <class P, class Operand>
struct ScaledOperand {
  Operand operand;
  const double* scales;

  void pack(std::int64_t first, std::int64_t vectors, std::int64_t from, std::int64_t depth,
            typename P::Entry* out) const {
    using T = typename P::Number;
    operand.pack(first, vectors, from, depth, out);
    if (!scales) return;
    for_panels<P>(vectors, depth, out, [&](std::int64_t, std::int64_t, T* panel) {
      for (std::int64_t d = 0; d < depth; ++d, panel += lanes<T>)
        store<T, T>(panel, load<T>(panel) * broadcast(static_cast<T>(scales[from + d])));
    });
  }
};

// Rows of a symmetric matrix of which only the packed lower triangle is stored. Left of the diagonal a row
// lies in one piece; right of it, it is a column of the triangle, whose numbers lie next to those of the
// neighboring rows.
template <class P>
struct SymmetricOperand {
  using T = typename P::Number;
  const T* lower;

  void pack(std::int64_t first, std::int64_t vectors, std::int64_t from, std::int64_t depth,
            typename P::Entry* out) const {
    constexpr int n = lanes<T>;
    for_panels<P>(vectors, depth, out, [&](std::int64_t v, std::int64_t count, typename P::Entry* panel) {
      const std::int64_t row = first + v, end = from + depth;
      const std::int64_t diagonal_begin = row < from ? from : smaller(row, end);
      const std::int64_t diagonal_end = row + n < from ? from : smaller(row + n, end);
      const auto at = [&](std::int64_t column) { return at_depth<P>(panel, column - from); };
      pack_lines<P>([&](std::int64_t i) { return lower + triangle(row + i) + from; }, count,
                    diagonal_begin - from, at(from));
      const auto element = [&](std::int64_t i, std::int64_t d) {
        const std::int64_t a = row + i, b = diagonal_begin + d;
        return a < b ? lower[triangle(b) + a] : lower[triangle(a) + b];
      };
      pack_elements<P>(element, count, diagonal_end - diagonal_begin, at(diagonal_begin));
      pack_rows<P>([&](std::int64_t d) { return lower + triangle(diagonal_end + d) + row; }, count,
                   end - diagonal_end, at(diagonal_end));
    });
  }
};

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
