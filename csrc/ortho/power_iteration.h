// The two passes over a matrix that SRIP needs; R itself is never formed.
//
// A matrix is seen as lines: runs of numbers that lie next to each other in memory. Lines along the depth are cut
// into pieces short enough that all of them stay in L2 between their two uses; lines along the order are used twice in
// a row. A matrix without either is copied, piece by piece, to lines along the depth.
#pragma once

#include "cpu_kernels.h"
#include "simd.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class S>
struct Lines {
  const S* first;
  std::int64_t stride;
  const S* operator[](std::int64_t i) const { return first + i * stride; }
};

// sums[i] = <line i, vector>
template <int Count, class T, class S>
ORTHO_INLINE void dot_some(const Lines<S>& lines, std::int64_t first, std::int64_t length, const T* vector, T* sums) {
  Vector<T> partial[Count] = {};
  std::int64_t c = 0;
  for (; c + lanes<T> <= length; c += lanes<T>) {
    const Vector<T> v = load<T>(vector + c);
#pragma GCC unroll 8
    for (int i = 0; i < Count; ++i) partial[i] += load<T>(lines[first + i] + c) * v;
  }
  if (c < length) {
    const Vector<T> v = load_some<T>(vector + c, length - c);
    for (int i = 0; i < Count; ++i) partial[i] += load_some<T>(lines[first + i] + c, length - c) * v;
  }
  for (int i = 0; i < Count; ++i) sums[i] = sum_of_lanes<T>(partial[i]);
}

template <class T, class S>
void dot_lines(const Lines<S>& lines, std::int64_t count, std::int64_t length, const T* vector, T* sums) {
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) dot_some<4>(lines, i, length, vector, sums + i);
  for (; i < count; ++i) dot_some<1>(lines, i, length, vector, sums + i);
}

// target += sum of factors[i] * line i
template <int Count, class T, class S>
ORTHO_INLINE void add_some(const Lines<S>& lines, std::int64_t first, std::int64_t length, const T* factors, T* target) {
  std::int64_t c = 0;
  for (; c + lanes<T> <= length; c += lanes<T>) {
    Vector<T> sum = load<T>(lines[first] + c) * broadcast(factors[0]);
#pragma GCC unroll 8
    for (int i = 1; i < Count; ++i) sum += load<T>(lines[first + i] + c) * broadcast(factors[i]);
    store<T, T>(target + c, load<T>(target + c) + sum);
  }
  for (; c < length; ++c) {
    T sum = load_one<T>(lines[first] + c) * factors[0];
    for (int i = 1; i < Count; ++i) sum += load_one<T>(lines[first + i] + c) * factors[i];
    target[c] += sum;
  }
}

template <class T, class S>
void add_lines(const Lines<S>& lines, std::int64_t count, std::int64_t length, const T* factors, T* target) {
  std::int64_t i = 0;
  for (; i + 4 <= count; i += 4) add_some<4>(lines, i, length, factors + i, target);
  for (; i < count; ++i) add_some<1>(lines, i, length, factors + i, target);
}

template <class T>
void clear(T* target, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) target[i] = T(0);
}

// ---- pieces of the depth -------------------------------------------------------------------------------

constexpr std::int64_t widest_piece = 1024;
constexpr std::int64_t lines_at_once = 4;

// The length of a piece of all lines: about 64 thousand numbers of the matrix.
constexpr std::int64_t piece_length(std::int64_t order) {
  const std::int64_t length = (65536 / (order < 1 ? 1 : order) + 63) / 64 * 64;
  return length < 64 ? 64 : length > widest_piece ? widest_piece : length;
}

constexpr bool lies_along_depth(const Matrix& m) { return m.depth_stride == 1; }
constexpr bool lies_along_order(const Matrix& m) { return m.depth_stride != 1 && m.order_stride == 1; }

template <class T>
std::int64_t pass_memory(const Matrix& matrix, std::int64_t vectors) {
  const std::int64_t order = matrix.shape.order;
  if (lies_along_order(matrix)) return (vectors + 1) * lines_at_once + order;
  const std::int64_t piece = piece_length(order);
  return (vectors + 1) * piece + (lies_along_depth(matrix) ? 0 : order * piece);
}

// Calls body(lines, begin, length) for each piece of [begin, end): the part of all lines from `begin` on.
template <class T, class S, class Body>
ORTHO_INLINE void for_pieces(const Matrix& matrix, std::int64_t begin, std::int64_t end, T* copy, const Body& body) {
  const S* data = static_cast<const S*>(matrix.data);
  const std::int64_t order = matrix.shape.order, piece = piece_length(order);
  for (std::int64_t from = begin; from < end; from += piece) {
    const std::int64_t length = from + piece < end ? piece : end - from;
    if (lies_along_depth(matrix)) {
      body(Lines<S>{data + from, matrix.order_stride}, from, length);
    } else {
      for (std::int64_t i = 0; i < order; ++i) {
        for (std::int64_t c = 0; c < length; ++c) {
          copy[i * piece + c] = load_one<T>(data + i * matrix.order_stride + (from + c) * matrix.depth_stride);
        }
      }
      body(Lines<T>{copy, piece}, from, length);
    }
  }
}

// ---- product += W (W^T vector) -------------------------------------------------------------------------

// The product is summed in double: R x = W (W^T x) - x is a difference of nearly equal numbers.
template <class T>
void add_to(double* total, T* part, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) total[i] += static_cast<double>(part[i]);
  clear(part, count);
}

template <class T>
void gram_times_vector(const Matrix& matrix, std::int64_t begin, std::int64_t end, const T* vector, double* product,
                       T* memory) {
  constexpr std::int64_t summed_at_once = 64;
  const std::int64_t order = matrix.shape.order;
  with_storage<T>(matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    if (lies_along_order(matrix)) {
      const Lines<S> lines{static_cast<const S*>(matrix.data), matrix.depth_stride};
      T* part = memory;
      clear(part, order);
      for (std::int64_t p = begin; p < end; p += lines_at_once) {
        const std::int64_t count = end - p < lines_at_once ? end - p : lines_at_once;
        const Lines<S> some{lines[p], lines.stride};
        T along_depth[lines_at_once];
        dot_lines<T>(some, count, order, vector, along_depth);
        add_lines<T>(some, count, order, along_depth, part);
        if ((p - begin + lines_at_once) % summed_at_once == 0) add_to(product, part, order);
      }
      add_to(product, part, order);
    } else {
      T* along_depth = memory;
      for_pieces<T, S>(matrix, begin, end, memory + 2 * piece_length(order),
                       [&](const auto& lines, std::int64_t, std::int64_t length) {
        clear(along_depth, length);
        add_lines<T>(lines, order, length, vector, along_depth);
        for (std::int64_t i = 0; i < order; i += lines_at_once) {
          const std::int64_t count = order - i < lines_at_once ? order - i : lines_at_once;
          T sums[lines_at_once];
          dot_lines<T>(std::decay_t<decltype(lines)>{lines[i], lines.stride}, count, length, along_depth, sums);
          for (std::int64_t r = 0; r < count; ++r) product[i + r] += static_cast<double>(sums[r]);
        }
      });
    }
    return 0;
  });
}

// ---- gradient = scale * sum over pairs of (left right^T + right left^T) W --------------------------------

// In a list of pairs the partner of an even vector is the next one, of an odd one the one before.
constexpr std::int64_t partner(std::int64_t vector) { return vector ^ 1; }

template <class T>
void rank_update(const RankUpdateJob& job, T* memory) {
  const Matrix& matrix = job.matrix;
  const Gradient& gradient = job.gradient;
  const std::int64_t order = matrix.shape.order, count = 2 * job.pairs;
  const Lines<T> vectors{static_cast<const T*>(job.vectors), order};
  const T scale = static_cast<T>(job.scale);
  with_storage<T>(matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    S* target = static_cast<S*>(gradient.data);
    if (lies_along_order(matrix)) {
      const Lines<S> lines{static_cast<const S*>(matrix.data), matrix.depth_stride};
      T* sum = memory;
      T* products = memory + order;
      for (std::int64_t p = job.begin; p < job.end; p += lines_at_once) {
        const std::int64_t some = job.end - p < lines_at_once ? job.end - p : lines_at_once;
        for (std::int64_t v = 0; v < count; ++v) {
          T along_depth[lines_at_once];
          dot_lines<T>(Lines<S>{lines[p], lines.stride}, some, order, vectors[v], along_depth);
          for (std::int64_t q = 0; q < some; ++q) products[q * count + partner(v)] = along_depth[q];
        }
        for (std::int64_t q = 0; q < some; ++q) {
          clear(sum, order);
          add_lines<T>(vectors, count, order, products + q * count, sum);
          write_line<S, T>(target + (p + q) * gradient.depth_stride, gradient.order_stride, sum, order, scale);
        }
      }
    } else {
      const std::int64_t piece = piece_length(order);
      T* sum = memory;
      T* products = memory + piece;
      for_pieces<T, S>(matrix, job.begin, job.end, products + count * piece,
                       [&](const auto& lines, std::int64_t begin, std::int64_t length) {
        for (std::int64_t v = 0; v < count; ++v) {
          clear(products + partner(v) * piece, length);
          add_lines<T>(lines, order, length, vectors[v], products + partner(v) * piece);
        }
        for (std::int64_t i = 0; i < order; ++i) {
          T factors[2];
          clear(sum, length);
          for (std::int64_t v = 0; v < count; v += 2) {
            factors[0] = vectors[v][i];
            factors[1] = vectors[v + 1][i];
            add_some<2>(Lines<T>{products, piece}, v, length, factors, sum);
          }
          write_line<S, T>(target + i * gradient.order_stride + begin * gradient.depth_stride, gradient.depth_stride, sum,
                           length, scale);
        }
      });
    }
    return 0;
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
