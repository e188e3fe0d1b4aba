// The two passes over a matrix that SRIP needs; R itself is never formed.
//
// Lines along the depth are cut into pieces: for W (W^T x) short enough that all lines of a piece stay in L2
// between their two uses, for the gradient, which uses them once, as long as its sums fit L1. Lines along the
// order are used twice in a row. A matrix that has neither is copied, piece by piece, to lines along the
// depth.
#pragma once

#include "kernels.h"
#include "lines.h"

namespace ortho::ORTHO_LEVEL {
namespace {

constexpr std::int64_t at_once = 4;              // lines
constexpr std::int64_t widest_piece = 1024;      // numbers of a line
constexpr std::int64_t piece_entries = 131'072;  // numbers of all lines
constexpr std::int64_t summed_lines = 32;  // float sums of this many products are formed apart and then added

constexpr std::int64_t piece_length(std::int64_t order) {
  const std::int64_t length = (piece_entries / (order < 1 ? 1 : order) + 63) / 64 * 64;
  return length < 64 ? 64 : length > widest_piece ? widest_piece : length;
}

constexpr bool is_depth_major(const Matrix& m) { return m.depth_stride == 1; }
constexpr bool is_order_major(const Matrix& m) { return m.depth_stride != 1 && m.order_stride == 1; }
constexpr bool is_copied(const Matrix& m) { return !is_depth_major(m) && !is_order_major(m); }

constexpr std::int64_t update_piece(const Matrix& m) {
  return is_copied(m) ? piece_length(m.shape.order) : widest_piece;
}

// Enough for either pass: sums along the depth and along the order, and a copy where one is needed.
template <class T>
std::int64_t pass_memory(const Matrix& matrix, std::int64_t vectors) {
  const std::int64_t order = matrix.shape.order, piece = update_piece(matrix);
  const std::int64_t copy = is_copied(matrix) ? order * piece : 0;
  return (vectors + at_once + 1) * piece + at_once * vectors + (at_once + lanes<T>)*order + copy;
}

// Calls body(lines, begin, length) for each piece of [begin, end): the part of all lines from `begin` on.
template <class T, class S, class Body>
ORTHO_INLINE void for_pieces(const Matrix& matrix, std::int64_t begin, std::int64_t end, std::int64_t piece,
                             T* copy, const Body& body) {
  const S* data = static_cast<const S*>(matrix.data);
  const std::int64_t order = matrix.shape.order;
  for (std::int64_t from = begin; from < end; from += piece) {
    const std::int64_t length = from + piece < end ? piece : end - from;
    if (is_depth_major(matrix)) {
      body(Lines<const S>{data + from, matrix.order_stride}, from, length);
    } else {
      for (std::int64_t i = 0; i < order; ++i) {
        for (std::int64_t c = 0; c < length; ++c) {
          copy[i * piece + c] =
              load_one<T>(data + i * matrix.order_stride + (from + c) * matrix.depth_stride);
        }
      }
      body(Lines<const T>{copy, piece}, from, length);
    }
  }
}

// ---- product += W (W^T vector) -------------------------------------------------------------------------

// R x = W (W^T x) - x is a difference of nearly equal numbers: long sums go to double.
template <class T, class S>
void product_along_order(const Lines<const S>& lines, std::int64_t count, std::int64_t order, const T* vector,
                         double* product, T* memory) {
  T* part = memory;
  clear(part, order);
  for (std::int64_t p = 0; p < count; p += at_once) {
    const std::int64_t some = count - p < at_once ? count - p : at_once;
    T along_depth[at_once];
    dot_lines<T>(lines.from(p), some, Lines<const T>{vector, 0}, 1, order, along_depth, 1);
    mix<T>(
        Lines<T>{part, 0}, 1, lines.from(p), some, order,
        [&](std::int64_t, std::int64_t s) { return along_depth[s]; }, true);
    if ((p + at_once) % summed_lines == 0) move_into(product, part, order);
  }
  move_into(product, part, order);
}

template <class T, class S>
void product_along_depth(const Matrix& matrix, std::int64_t begin, std::int64_t end, const T* vector,
                         double* product, T* memory) {
  const std::int64_t order = matrix.shape.order, piece = piece_length(order);
  T* along_depth = memory;
  T* part = along_depth + piece;
  T* lane_sums = part + piece;
  T* copy = lane_sums + order * lanes<T>;
  const auto fold = [&] {
    for (std::int64_t i = 0; i < order; ++i) {
      for (int lane = 0; lane < lanes<T>; ++lane)
        product[i] += static_cast<double>(lane_sums[i * lanes<T> + lane]);
    }
    clear(lane_sums, order * lanes<T>);
  };
  clear(lane_sums, order * lanes<T>);
  std::int64_t summed = 0;
  for_pieces<T, S>(matrix, begin, end, piece, copy,
                   [&](const auto& lines, std::int64_t, std::int64_t length) {
                     for (std::int64_t i = 0; i < order; i += summed_lines) {
                       const std::int64_t some = order - i < summed_lines ? order - i : summed_lines;
                       T* target = i == 0 ? along_depth : part;
                       mix<T>(
                           Lines<T>{target, 0}, 1, lines.from(i), some, length,
                           [&](std::int64_t, std::int64_t s) { return vector[i + s]; }, false);
                       if (i > 0)
                         mix<T>(
                             Lines<T>{along_depth, 0}, 1, Lines<const T>{part, 0}, 1, length,
                             [](std::int64_t, std::int64_t) { return T(1); }, true);
                     }
                     add_products<T>(lines, order, along_depth, length, lane_sums);
                     summed += length;
                     if (summed >= widest_piece) {
                       fold();
                       summed = 0;
                     }
                   });
  fold();
}

template <class T>
void gram_times_vector(const Matrix& matrix, std::int64_t begin, std::int64_t end, const T* vector,
                       double* product, T* memory) {
  with_storage<T>(matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    if (is_order_major(matrix)) {
      const Lines<const S> lines{static_cast<const S*>(matrix.data), matrix.depth_stride};
      product_along_order<T>(lines.from(begin), end - begin, matrix.shape.order, vector, product, memory);
    } else {
      product_along_depth<T, S>(matrix, begin, end, vector, product, memory);
    }
    return 0;
  });
}

// ---- gradient = scale * sum over pairs of (left right^T + right left^T) W --------------------------------

// In a list of pairs the partner of an even vector is the next one, of an odd one the one before.
constexpr std::int64_t partner(std::int64_t vector) { return vector ^ 1; }

// A few lines of the gradient, sum over v of factor(line, v) * source v; by way of `memory` where they can't
// be written directly. `across` is the gradient's stride from line to line, `along` that within a line.
template <class T, class S, class Factor>
void write_gradient(const RankUpdateJob& job, S* target, std::int64_t across, std::int64_t along,
                    std::int64_t count, const Lines<const T>& sources, std::int64_t source_count,
                    std::int64_t length, const Factor& factor, T* memory) {
  const bool accumulate = job.gradient.accumulate;
  if (along == 1 && source_count <= 4 && (std::is_same_v<S, T> || !accumulate)) {
    if constexpr (std::is_same_v<S, T>) {
      if (job.non_temporal && can_store_non_temporal<T>(target, across)) {
        const Lines<NonTemporal<S>> non_temporal{reinterpret_cast<NonTemporal<S>*>(target), across};
        mix<T>(non_temporal, count, sources, source_count, length, factor, false);
        return;
      }
    }
    mix<T>(Lines<S>{target, across}, count, sources, source_count, length, factor, accumulate);
    return;
  }
  mix<T>(Lines<T>{memory, length}, count, sources, source_count, length, factor, false);
  for (std::int64_t i = 0; i < count; ++i)
    write_line<S, T>(target + i * across, along, memory + i * length, length, T(1), accumulate);
}

template <class T, class S>
void rank_update_along_order(const RankUpdateJob& job, const Lines<const T>& vectors, T* memory) {
  const std::int64_t order = job.matrix.shape.order, count = 2 * job.pairs;
  const T scale = static_cast<T>(job.scale);
  const Lines<const S> lines{static_cast<const S*>(job.matrix.data), job.matrix.depth_stride};
  S* target = static_cast<S*>(job.gradient.data);
  T* dots = memory;
  T* sums = dots + at_once * count;
  for (std::int64_t p = job.begin; p < job.end; p += at_once) {
    const std::int64_t some = job.end - p < at_once ? job.end - p : at_once;
    dot_lines<T>(lines.from(p), some, vectors, count, order, dots, count);
    write_gradient<T, S>(
        job, target + p * job.gradient.depth_stride, job.gradient.depth_stride, job.gradient.order_stride,
        some, vectors, count, order,
        [&](std::int64_t q, std::int64_t v) { return scale * dots[q * count + partner(v)]; }, sums);
  }
}

template <class T, class S>
void rank_update_along_depth(const RankUpdateJob& job, const Lines<const T>& vectors, T* memory) {
  const std::int64_t order = job.matrix.shape.order, count = 2 * job.pairs, piece = update_piece(job.matrix);
  const T scale = static_cast<T>(job.scale);
  T* products = memory;
  T* sums = products + count * piece;
  T* copy = sums + at_once * piece;
  for_pieces<T, S>(job.matrix, job.begin, job.end, piece, copy,
                   [&](const auto& lines, std::int64_t begin, std::int64_t length) {
                     mix<T>(
                         Lines<T>{products, piece}, count, lines, order, length,
                         [&](std::int64_t v, std::int64_t i) { return vectors[v][i]; }, false);
                     S* target = static_cast<S*>(job.gradient.data) + begin * job.gradient.depth_stride;
                     for (std::int64_t i = 0; i < order; i += at_once) {
                       const std::int64_t some = order - i < at_once ? order - i : at_once;
                       write_gradient<T, S>(
                           job, target + i * job.gradient.order_stride, job.gradient.order_stride,
                           job.gradient.depth_stride, some, Lines<const T>{products, piece}, count, length,
                           [&](std::int64_t q, std::int64_t v) { return scale * vectors[partner(v)][i + q]; },
                           sums);
                     }
                   });
}

template <class T>
void rank_update(const RankUpdateJob& job, T* memory) {
  const Lines<const T> vectors{static_cast<const T*>(job.vectors), job.matrix.shape.order};
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    if (is_order_major(job.matrix)) {
      rank_update_along_order<T, S>(job, vectors, memory);
    } else {
      rank_update_along_depth<T, S>(job, vectors, memory);
    }
    if (job.non_temporal) fence_non_temporal();
    return 0;
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
