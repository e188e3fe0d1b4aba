// Lines of length 1, and the gradient through their scaling: with x = w / |w|, the derivative g of x becomes
// (g - (g . x) x) / |w|.
#pragma once

#include "kernels.h"
#include "lines.h"
#include "panels.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <int N, class T>
ORTHO_INLINE T fold_lanes(Lanes<T, N> v) {
  if constexpr (N == 2) {
    return v[0] + v[1];
  } else {
    Lanes<T, N / 2> halves[2];
    __builtin_memcpy(halves, &v, sizeof(v));
    return fold_lanes<N / 2, T>(halves[0] + halves[1]);
  }
}

// A vector of a line of `count` numbers, zeros beyond its end.
template <class T, class S>
ORTHO_INLINE Vector<T> load_of_line(const S* line, std::int64_t stride, std::int64_t from,
                                    std::int64_t count) {
  const std::int64_t some = smaller(lanes<T>, count - from);
  if (stride == 1) return some == lanes<T> ? load<T>(line + from) : load_some<T>(line + from, some);
  T padded[lanes<T>] = {};
  for (std::int64_t i = 0; i < some; ++i) padded[i] = load_one<T>(line + (from + i) * stride);
  return load<T>(padded);
}

// The sum of term(from) over all vectors of a line.
template <class T, class Term>
ORTHO_INLINE double sum_along(std::int64_t count, const Term& term) {
  constexpr std::int64_t at_once = 512;  // so that no sum of T gets long
  double total = 0;
  for (std::int64_t first = 0; first < count; first += at_once) {
    Vector<T> sum{};
    for (std::int64_t c = first; c < smaller(first + at_once, count); c += lanes<T>) sum += term(c);
    total += static_cast<double>(fold_lanes<lanes<T>, T>(sum));
  }
  return total;
}

template <class T>
void invert_lengths(const LinesJob& job) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const std::int64_t order = job.matrix.shape.order, stride = job.matrix.order_stride;
    for (std::int64_t d = job.begin; d < job.end; ++d) {
      const S* source = static_cast<const S*>(job.matrix.data) + d * job.matrix.depth_stride;
      const double square = sum_along<T>(order, [&](std::int64_t c) {
        const Vector<T> numbers = load_of_line<T>(source, stride, c, order);
        return numbers * numbers;
      });
      const double zero_or_nan = square - square;
      job.inverse_lengths[d - job.begin] =
          square < smallest_square<T> ? 0 : 1 / __builtin_sqrt(square) + zero_or_nan;
    }
    return 0;
  });
}

template <class T>
void unit_lines(const LinesJob& job) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const std::int64_t order = job.matrix.shape.order, stride = job.matrix.order_stride;
    T* line = static_cast<T*>(job.lines);
    for (std::int64_t d = job.begin; d < job.end; ++d, line += order) {
      const S* source = static_cast<const S*>(job.matrix.data) + d * job.matrix.depth_stride;
      const Vector<T> scale = broadcast(static_cast<T>(job.inverse_lengths[d - job.begin]));
      for (std::int64_t c = 0; c < order; c += lanes<T>) {
        const Vector<T> scaled = load_of_line<T>(source, stride, c, order) * scale;
        if (c + lanes<T> <= order) {
          store<T, T>(line + c, scaled);
        } else {
          store_some<T, T>(line + c, scaled, order - c);
        }
      }
    }
    return 0;
  });
}

template <class T>
void project_lines(const LinesJob& job) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const std::int64_t order = job.matrix.shape.order;
    const T* line = static_cast<const T*>(job.lines);
    T* derivative = static_cast<T*>(job.derivatives);
    for (std::int64_t d = job.begin; d < job.end; ++d, line += order, derivative += order) {
      const double pull = sum_along<T>(order, [&](std::int64_t c) {
        return load_of_line<T>(line, 1, c, order) * load_of_line<T>(derivative, 1, c, order);
      });
      const Vector<T> along_line = broadcast(static_cast<T>(pull));
      along<T>(order, [&](const auto& read, const auto& write) {
        write(derivative, read(derivative) - along_line * read(line));
      });
      write_line(static_cast<S*>(job.gradient.data) + d * job.gradient.depth_stride,
                 job.gradient.order_stride, derivative, order,
                 static_cast<T>(job.inverse_lengths[d - job.begin]), job.gradient.accumulate);
    }
    return 0;
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
