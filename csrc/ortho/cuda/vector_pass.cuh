// Passes over W with vectors: W_b (W_b^T x) for a range of the depth. A warp reads lines, along the depth or
// along the order, whichever is closer in memory; strips of W are read twice in a row, the second time from
// the caches.
#pragma once

#include "arguments.h"
#include "reduce.cuh"
#include "two_float.cuh"

namespace ortho::cuda {

// The caller's index of an entry of a matrix's vector.
ORTHO_DEVICE std::int64_t caller_index(const PermutationArguments& permutation, std::int32_t entry) {
  if (permutation.count == 0) return entry;
  std::int64_t index = 0;
  for (int d = permutation.count - 1; d >= 0; --d) {
    index += std::int64_t{entry % permutation.digits[d].size} * permutation.digits[d].step;
    entry /= permutation.digits[d].size;
  }
  return index;
}

constexpr int pass_warps = pass_threads / warp_size;
constexpr int lines_at_once = 4;                          // loads in flight hide their latency
constexpr int strip_columns = longest_strip / warp_size;  // of a lane

constexpr std::size_t pass_shared_bytes = sizeof(double) * longest_strip * (pass_warps + 1);

// What each warp found for each column of a strip, and the sums over all warps.
template <class T>
struct StripMemory {
  ORTHO_DEVICE T* of_warp(int warp) const { return memory + warp * longest_strip; }
  ORTHO_DEVICE T* sums() const { return memory + pass_warps * longest_strip; }
  T* memory;
};

template <class T>
ORTHO_DEVICE StripMemory<T> strip_memory() {
  static_assert(sizeof(T) == sizeof(double));
  return {reinterpret_cast<T*>(shared_memory())};
}

// sums()[c] = sum over warps, in order.
template <class T>
ORTHO_DEVICE void add_warps(const StripMemory<T>& memory, std::int32_t columns) {
  block_barrier();
  if (within(thread_index(), columns)) {
    T sum(0);
    for (int warp = 0; warp < pass_warps; ++warp) sum += memory.of_warp(warp)[thread_index()];
    memory.sums()[thread_index()] = sum;
  }
  block_barrier();
}

// Lines along the depth: row i of W is a line. A lane has every 32nd column of the strip, a warp every 8th
// group of four rows.
template <class T, class S, class M>
ORTHO_DEVICE void strip_along_depth(const M& matrix, std::int32_t begin, std::int32_t columns,
                                    const T* vector, T* product, bool first) {
  using Entry = EntryOf<T>;
  const int lane = thread_index() % warp_size, warp = thread_index() / warp_size;
  const S* const strip = static_cast<const S*>(matrix.data) + begin * matrix.depth_stride;
  const StripMemory memory = strip_memory<T>();
  const auto load = [&](std::int32_t row, std::int32_t column) {
    return within(row, matrix.order) && within(column, columns)
               ? number_from<Entry>(strip[row * matrix.order_stride + column * matrix.depth_stride])
               : Entry(0);
  };
  T along_depth[strip_columns] = {};
  for (std::int32_t row = warp * lines_at_once; row < matrix.order; row += pass_warps * lines_at_once) {
    ORTHO_UNROLL
    for (int r = 0; r < lines_at_once; ++r) {
      const T factor = within(row + r, matrix.order) ? read_past_l1(vector + row + r) : T(0);
      ORTHO_UNROLL
      for (int c = 0; c < strip_columns; ++c)
        add_product(along_depth[c], load(row + r, lane + c * warp_size), factor);
    }
  }
  ORTHO_UNROLL
  for (int c = 0; c < strip_columns; ++c) memory.of_warp(warp)[lane + c * warp_size] = along_depth[c];
  add_warps(memory, columns);
  T factors[strip_columns];
  ORTHO_UNROLL
  for (int c = 0; c < strip_columns; ++c) {
    const std::int32_t column = lane + c * warp_size;
    factors[c] = within(column, columns) ? memory.sums()[column] : T(0);
  }
  block_barrier();  // all have read the sums: the next strip may lie along the order, and writes them at once
  for (std::int32_t row = warp * lines_at_once; row < matrix.order; row += pass_warps * lines_at_once) {
    T sums[lines_at_once] = {};
    ORTHO_UNROLL
    for (int r = 0; r < lines_at_once; ++r) {
      ORTHO_UNROLL
      for (int c = 0; c < strip_columns; ++c)
        add_product(sums[r], load(row + r, lane + c * warp_size), factors[c]);
    }
    T sum = sum_four_over_warp(sums);
    const std::int32_t own = row + lane / 8;
    if (lane % 8 == 0 && within(own, matrix.order)) {
      if (!first) sum += product[own];
      product[own] = sum;
    }
  }
}

// Lines along the order: entry k of the depth is a line, a warp has every 8th. Then a thread has every 256th
// entry of the order.
template <class T, class S, class M>
ORTHO_DEVICE void strip_along_order(const M& matrix, std::int32_t begin, std::int32_t columns,
                                    const T* vector, T* product, bool first) {
  const int lane = thread_index() % warp_size, warp = thread_index() / warp_size;
  const S* const strip = static_cast<const S*>(matrix.data) + begin * matrix.depth_stride;
  const StripMemory memory = strip_memory<T>();
  const auto load = [&](std::int32_t row, std::int32_t column) {
    return number_from<EntryOf<T>>(strip[row * matrix.order_stride + column * matrix.depth_stride]);
  };
  for (std::int32_t column = warp; column < columns; column += pass_warps) {
    T sum(0);
    for (std::int32_t row = lane; row < matrix.order; row += warp_size)
      add_product(sum, load(row, column), read_past_l1(vector + row));
    sum = sum_over_warp(sum);
    if (lane == 0) memory.sums()[column] = sum;
  }
  block_barrier();
  for (std::int32_t row = thread_index(); row < matrix.order; row += pass_threads) {
    T sum(0);
    for (std::int32_t column = 0; column < columns; ++column)
      add_product(sum, load(row, column), memory.sums()[column]);
    if (!first) sum += product[row];
    product[row] = sum;
  }
  block_barrier();  // the next strip writes the sums anew
}

// product = W_b (W_b^T vector), where W_b is W from `begin` to `end` of its depth.
template <class T, class S, class M>
ORTHO_DEVICE void gram_times_vector(const M& matrix, std::int32_t begin, std::int32_t end, const T* vector,
                                    T* product) {
  for (std::int32_t from = begin; from < end; from += matrix.strip) {
    const std::int32_t columns = end - from < matrix.strip ? end - from : matrix.strip;
    if (is_depth_major(matrix.order_stride, matrix.depth_stride)) {
      strip_along_depth<T, S>(matrix, from, columns, vector, product, from == begin);
    } else {
      strip_along_order<T, S>(matrix, from, columns, vector, product, from == begin);
    }
  }
}

}  // namespace ortho::cuda
