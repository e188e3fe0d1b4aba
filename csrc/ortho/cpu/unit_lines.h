// Lines of length 1, and the gradient through their scaling: with x = w / |w|, the derivative g of x becomes
// (g - (g . x) x) / |w|.
#pragma once

#include "kernels.h"
#include "lines.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class T>
double dot(const T* a, const T* b, std::int64_t count) {
  Vector<double> sum{};
  along<double>(count, [&](const auto& read, const auto&) { sum += read(a) * read(b); });
  return sum_of_lanes<double>(sum);
}

template <class T>
void unit_lines(const UnitLinesJob& job) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const std::int64_t order = job.matrix.shape.order, stride = job.matrix.order_stride;
    T* line = static_cast<T*>(job.lines);
    for (std::int64_t d = job.begin; d < job.end; ++d, line += order) {
      const S* source = static_cast<const S*>(job.matrix.data) + d * job.matrix.depth_stride;
      if (stride == 1) {
        along<T>(order, [&](const auto& read, const auto& write) { write(line, read(source)); });
      } else {
        for (std::int64_t i = 0; i < order; ++i) line[i] = load_one<T>(source + i * stride);
      }
      const double square = dot(line, line, order);
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
      const Vector<T> along_line = broadcast(static_cast<T>(dot(line, derivative, order)));
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
