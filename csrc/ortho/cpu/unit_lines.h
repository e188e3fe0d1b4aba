// Lines of length 1, and the gradient through their scaling: with x = w / |w|, the derivative g of x becomes
// (g - (g . x) x) / |w|.
#pragma once

#include "kernels.h"
#include "lines.h"

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

// The sum of term(first, read, write) over all vectors of a line of `count` numbers; `first` numbers come
// before what is read and written.
template <class T, class Term>
ORTHO_INLINE double sum_along(std::int64_t count, const Term& term) {
  constexpr std::int64_t at_once = 512;  // so that no sum of T gets long
  double total = 0;
  for (std::int64_t first = 0; first < count; first += at_once) {
    Vector<T> sum{};
    along<T>(count - first < at_once ? count - first : at_once,
             [&](const auto& read, const auto& write) { sum += term(first, read, write); });
    total += static_cast<double>(fold_lanes<lanes<T>, T>(sum));
  }
  return total;
}

template <class T>
void unit_lines(const UnitLinesJob& job) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const std::int64_t order = job.matrix.shape.order, stride = job.matrix.order_stride;
    T* line = static_cast<T*>(job.lines);
    for (std::int64_t d = job.begin; d < job.end; ++d, line += order) {
      const S* source = static_cast<const S*>(job.matrix.data) + d * job.matrix.depth_stride;
      if (stride != 1) {
        for (std::int64_t i = 0; i < order; ++i) line[i] = load_one<T>(source + i * stride);
      }
      const double square = sum_along<T>(order, [&](std::int64_t first, const auto& read, const auto& write) {
        const Vector<T> numbers = stride == 1 ? read(source + first) : read(line + first);
        write(line + first, numbers);
        return numbers * numbers;
      });
      const double zero_or_nan = square - square;  // NaN also where the square overflows
      const double inverse = square == 0 ? 0 : 1 / __builtin_sqrt(square) + zero_or_nan;
      job.inverse_lengths[d - job.begin] = inverse;
      along<T>(order, [&](const auto& read, const auto& write) {
        write(line, read(line) * broadcast(static_cast<T>(inverse)));
      });
    }
    return 0;
  });
}

template <class T>
void project_lines(const UnitLinesJob& job) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const std::int64_t order = job.matrix.shape.order;
    const T* line = static_cast<const T*>(job.lines);
    T* derivative = static_cast<T*>(job.derivatives);
    for (std::int64_t d = job.begin; d < job.end; ++d, line += order, derivative += order) {
      const Vector<T> along_line = broadcast(
          static_cast<T>(sum_along<T>(order, [&](std::int64_t first, const auto& read, const auto&) {
            return read(line + first) * read(derivative + first);
          })));
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
