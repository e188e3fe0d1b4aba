// Passes over W with vectors: W_b (W_b^T x) for a range of the depth. A warp reads lines, along the depth or
// along the order, whichever lies closer in memory; strips of W are read twice in a row, the second time from
// the caches.
#pragma once

#include "launch.h"
#include "reduce.cuh"

namespace ortho::cuda {

ORTHO_DEVICE std::int64_t callers_index(const EntryDigits& digits, std::int32_t entry) {
  if (digits.count == 0) return entry;
  std::int64_t index = 0;
  for (int d = digits.count - 1; d >= 0; --d) {
    index += std::int64_t{entry % digits.digits[d].size} * digits.digits[d].step;
    entry /= digits.digits[d].size;
  }
  return index;
}

constexpr int pass_warps = pass_threads / warp_size;
constexpr int lines_at_once = 4;                          // loads in flight hide their latency
constexpr int strip_columns = longest_strip / warp_size;  // of a lane
constexpr int summed_at_once =
    32;  // float sums of this many products are formed apart and then added in double

// Sums of many products: in short runs of T, then in double.
template <class T>
class LongSum {
 public:
  ORTHO_DEVICE void add(T a, T b) { run_ += a * b; }
  ORTHO_DEVICE void end_run() {
    total_ += static_cast<double>(run_);
    run_ = 0;
  }
  ORTHO_DEVICE double total() const { return total_; }

 private:
  T run_ = 0;
  double total_ = 0;
};
template <>
class LongSum<double> {
 public:
  ORTHO_DEVICE void add(double a, double b) { total_ += a * b; }
  ORTHO_DEVICE void end_run() {}
  ORTHO_DEVICE double total() const { return total_; }

 private:
  double total_ = 0;
};

constexpr std::size_t pass_shared_bytes = sizeof(double) * longest_strip * (pass_warps + 1);

// What each warp found for each column of a strip, and the sums over all warps.
struct StripMemory {
  ORTHO_DEVICE double* of_warp(int warp) const { return memory + warp * longest_strip; }
  ORTHO_DEVICE double* sums() const { return memory + pass_warps * longest_strip; }
  double* memory;
};

ORTHO_DEVICE StripMemory strip_memory() { return {reinterpret_cast<double*>(shared_memory())}; }

// sums()[c] = sum over warps, in order.
ORTHO_DEVICE void add_warps(const StripMemory& memory, std::int32_t columns) {
  block_barrier();
  if (within(thread_index(), columns)) {
    double sum = 0;
    for (int warp = 0; warp < pass_warps; ++warp) sum += memory.of_warp(warp)[thread_index()];
    memory.sums()[thread_index()] = sum;
  }
  block_barrier();
}

// Lines along the depth: row i of W is a line. A lane has every 32nd column of the strip, a warp every 8th
// group of four rows.
template <class T, class S, class Matrix>
ORTHO_DEVICE void strip_along_depth(const Matrix& matrix, std::int32_t begin, std::int32_t columns,
                                    const T* vector, double* product, bool first) {
  const int lane = thread_index() % warp_size, warp = thread_index() / warp_size;
  const S* const strip = static_cast<const S*>(matrix.data) + begin * matrix.depth_stride;
  const StripMemory memory = strip_memory();
  const auto load = [&](std::int32_t row, std::int32_t column) {
    return within(row, matrix.order) && within(column, columns)
               ? number_from<T>(strip[row * matrix.order_stride + column * matrix.depth_stride])
               : T(0);
  };
  LongSum<T> along_depth[strip_columns];
  int runs = 0;
  for (std::int32_t row = warp * lines_at_once; row < matrix.order; row += pass_warps * lines_at_once) {
    ORTHO_UNROLL
    for (int r = 0; r < lines_at_once; ++r) {
      const T factor = within(row + r, matrix.order) ? read_past_l1(vector + row + r) : T(0);
      ORTHO_UNROLL
      for (int c = 0; c < strip_columns; ++c) along_depth[c].add(load(row + r, lane + c * warp_size), factor);
    }
    if (++runs % (summed_at_once / lines_at_once) == 0) {
      ORTHO_UNROLL
      for (int c = 0; c < strip_columns; ++c) along_depth[c].end_run();
    }
  }
  ORTHO_UNROLL
  for (int c = 0; c < strip_columns; ++c) {
    along_depth[c].end_run();
    memory.of_warp(warp)[lane + c * warp_size] = along_depth[c].total();
  }
  add_warps(memory, columns);
  T factors[strip_columns];
  ORTHO_UNROLL
  for (int c = 0; c < strip_columns; ++c) {
    const std::int32_t column = lane + c * warp_size;
    factors[c] = within(column, columns) ? static_cast<T>(memory.sums()[column]) : T(0);
  }
  block_barrier();  // all have read the sums: the next strip may lie along the order, and writes them at once
  for (std::int32_t row = warp * lines_at_once; row < matrix.order; row += pass_warps * lines_at_once) {
    T sums[lines_at_once];
    ORTHO_UNROLL
    for (int r = 0; r < lines_at_once; ++r) {
      sums[r] = 0;
      ORTHO_UNROLL
      for (int c = 0; c < strip_columns; ++c) sums[r] += load(row + r, lane + c * warp_size) * factors[c];
    }
    ORTHO_UNROLL
    for (int r = 0; r < lines_at_once; ++r) {
      const auto sum = static_cast<double>(sum_over_warp(sums[r]));
      if (lane == 0 && within(row + r, matrix.order)) product[row + r] = first ? sum : product[row + r] + sum;
    }
  }
}

// Lines along the order: entry k of the depth is a line, a warp has every 8th. Then a thread has every 256th
// entry of the order.
template <class T, class S, class Matrix>
ORTHO_DEVICE void strip_along_order(const Matrix& matrix, std::int32_t begin, std::int32_t columns,
                                    const T* vector, double* product, bool first) {
  const int lane = thread_index() % warp_size, warp = thread_index() / warp_size;
  const S* const strip = static_cast<const S*>(matrix.data) + begin * matrix.depth_stride;
  const StripMemory memory = strip_memory();
  const auto load = [&](std::int32_t row, std::int32_t column) {
    return number_from<T>(strip[row * matrix.order_stride + column * matrix.depth_stride]);
  };
  for (std::int32_t column = warp; column < columns; column += pass_warps) {
    LongSum<T> dot;
    int runs = 0;
    for (std::int32_t row = lane; row < matrix.order; row += warp_size) {
      dot.add(load(row, column), read_past_l1(vector + row));
      if (++runs % summed_at_once == 0) dot.end_run();
    }
    dot.end_run();
    const double sum = sum_over_warp(dot.total());
    if (lane == 0) memory.sums()[column] = sum;
  }
  block_barrier();
  for (std::int32_t row = thread_index(); row < matrix.order; row += pass_threads) {
    LongSum<T> sum;
    for (std::int32_t column = 0; column < columns; ++column) {
      sum.add(load(row, column), static_cast<T>(memory.sums()[column]));
      if ((column + 1) % summed_at_once == 0) sum.end_run();
    }
    sum.end_run();
    product[row] = first ? sum.total() : product[row] + sum.total();
  }
  block_barrier();  // the next strip writes the sums anew
}

// product = W_b (W_b^T vector), where W_b is W from `begin` to `end` of its depth.
template <class T, class S, class Matrix>
ORTHO_DEVICE void gram_times_vector(const Matrix& matrix, std::int32_t begin, std::int32_t end,
                                    const T* vector, double* product) {
  for (std::int32_t from = begin; from < end; from += matrix.strip) {
    const std::int32_t columns = end - from < matrix.strip ? end - from : matrix.strip;
    if (lies_along_depth(matrix.order_stride, matrix.depth_stride)) {
      strip_along_depth<T, S>(matrix, from, columns, vector, product, from == begin);
    } else {
      strip_along_order<T, S>(matrix, from, columns, vector, product, from == begin);
    }
  }
}

}  // namespace ortho::cuda
