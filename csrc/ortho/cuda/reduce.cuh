// Sums over the lanes of a warp and the warps of a block, always in the same order, and where an item
// belongs.
#pragma once

#include "device.cuh"

namespace ortho::cuda {

// The same sum in all lanes.
template <class T>
ORTHO_DEVICE T sum_over_warp(T value) {
  ORTHO_UNROLL
  for (int lanes = warp_size / 2; lanes > 0; lanes /= 2) value += shuffle_xor(value, lanes);
  return value;
}

// Each of four numbers summed over four lanes, with three shuffles in place of eight: lane l has the sum of
// number l % 4.
template <class T>
ORTHO_DEVICE T sum_four_over_four(const T (&numbers)[4]) {
  // A lane keeps one of two numbers and gives the other to the lane that keeps that one.
  const auto shared_out = [](T low, T high, int lanes) {
    const bool keeps_high = thread_index() & lanes;
    T kept = keeps_high ? high : low;
    kept += shuffle_xor(keeps_high ? low : high, lanes);
    return kept;
  };
  return shared_out(shared_out(numbers[0], numbers[2], 2), shared_out(numbers[1], numbers[3], 2), 1);
}

// Each number summed over all threads of a block, for all of them; uses the first of the shared memory.
template <int Threads, int Count>
ORTHO_DEVICE void sum_over_block(double (&numbers)[Count]) {
  constexpr int warps = Threads / warp_size;
  auto* const memory = reinterpret_cast<double*>(shared_memory());
  ORTHO_UNROLL
  for (int n = 0; n < Count; ++n) {
    const double sum = sum_over_warp(numbers[n]);
    if (thread_index() % warp_size == 0) memory[n * warps + thread_index() / warp_size] = sum;
  }
  block_barrier();
  ORTHO_UNROLL
  for (int n = 0; n < Count; ++n) {
    numbers[n] = 0;
    ORTHO_UNROLL
    for (int warp = 0; warp < warps; ++warp) numbers[n] += memory[n * warps + warp];
  }
  block_barrier();  // the memory may be used again
}

// The largest magnitude, for all lanes of a warp.
ORTHO_DEVICE float largest_of_warp(float number) {
  float largest = larger_magnitude(0, number);
  ORTHO_UNROLL
  for (int lanes = warp_size / 2; lanes > 0; lanes /= 2)
    largest = larger_magnitude(largest, shuffle_xor(largest, lanes));
  return largest;
}

// The same, for all threads of a block; uses the first of the shared memory.
template <int Threads>
ORTHO_DEVICE float largest_of_block(float number) {
  float largest = largest_of_warp(number);
  auto* const memory = reinterpret_cast<float*>(shared_memory());
  if (thread_index() % warp_size == 0) memory[thread_index() / warp_size] = largest;
  block_barrier();
  ORTHO_UNROLL
  for (int warp = 0; warp < Threads / warp_size; ++warp) largest = larger_magnitude(largest, memory[warp]);
  block_barrier();  // the memory may be used again
  return largest;
}

// Counts once for the whole block; returns the count before to all of its threads. They then see what the
// blocks that counted before wrote. Uses the first of the shared memory.
ORTHO_DEVICE std::uint32_t count_up_by_block(std::uint32_t* counter) {
  auto* const before = reinterpret_cast<std::uint32_t*>(shared_memory());
  block_barrier();
  // Fences are cumulative: thread 0's release what the whole block wrote, and acquire for the whole block.
  if (thread_index() == 0) {
    memory_fence();
    *before = count_up(counter);
    memory_fence();
  }
  block_barrier();
  const std::uint32_t result = *before;
  block_barrier();  // the memory may be used again
  return result;
}

// The next item that no block has taken, in order: whoever is done takes it. At the end there are none.
ORTHO_DEVICE std::int32_t next_item(std::uint32_t* taken, std::int32_t items) {
  const std::uint32_t item = count_up_by_block(taken);
  return item < static_cast<std::uint32_t>(items) ? static_cast<std::int32_t>(item) : items;
}

// The last of `count` matrices whose first item is not beyond this one. First: a pointer to member.
template <class M, class First>
ORTHO_DEVICE std::int32_t find_matrix(const M* matrices, std::int32_t count, std::int32_t item, First first) {
  std::int32_t low = 0, high = count;
  while (high - low > 1) {
    const std::int32_t middle = (low + high) / 2;
    (matrices[middle].*first <= item ? low : high) = middle;
  }
  return low;
}
template <class M>
ORTHO_DEVICE std::int32_t find_matrix(const M* matrices, std::int32_t count, std::int32_t item) {
  return find_matrix(matrices, count, item, &M::first_item);
}

// The row of a tile of a lower triangle whose tiles are numbered row by row.
ORTHO_DEVICE std::int32_t tile_row_of(std::int32_t tile) {
  auto row = static_cast<std::int32_t>((square_root(8.0 * tile + 1) - 1) / 2);
  while (triangle(row) > tile) --row;
  while (triangle(row + 1) <= tile) ++row;
  return row;
}

}  // namespace ortho::cuda
