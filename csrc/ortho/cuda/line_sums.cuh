// Sums over lines and over positions of packets, and over the threads that hold their parts: always in the
// same order. `memory` is shared, for part_numbers<S, Count> numbers; `take` gets each sum in one thread.
#pragma once

#include "lines.cuh"
#include "reduce.cuh"
#include "two_float.cuh"

namespace ortho::cuda {

constexpr int pass_warps = pass_threads / warp_size;

// sums[n] += over a thread's lines: number n x the factor of its line.
template <class S, class T, int Count>
ORTHO_DEVICE void add_lines(const Packet<S> (&packets)[Count], const T* factors,
                            T (&sums)[packet_numbers<S>]) {
  ORTHO_UNROLL
  for (int p = 0; p < Count; ++p) {
    const T of_line = factors[p];
    ORTHO_UNROLL
    for (int n = 0; n < packet_numbers<S>; ++n)
      add_product(sums[n], number_from<EntryOf<T>>(packets[p].number(n)), of_line);
  }
}

// The sum over four threads' positions, number n x factors[n], of line 4 q + lane % 4.
template <class S, class T, int Count>
ORTHO_DEVICE T sum_of_positions(const Packet<S> (&packets)[Count], int q,
                                const T (&factors)[packet_numbers<S>]) {
  T four[4] = {};
  ORTHO_UNROLL
  for (int p = 0; p < 4; ++p) {
    ORTHO_UNROLL
    for (int n = 0; n < packet_numbers<S>; ++n)
      add_product(four[p], number_from<EntryOf<T>>(packets[4 * q + p].number(n)), factors[n]);
  }
  return sum_four_over_four(four);
}

// Of at most as many parts as there are warps.
template <class T>
ORTHO_DEVICE T sum_of_parts(const T* first, std::int32_t parts, std::int32_t step) {
  T sum(0);
  ORTHO_UNROLL
  for (std::int32_t part = 0; part < pass_warps; ++part) {
    if (within(part, parts)) sum += first[part * step];
  }
  return sum;
}

// take(position, sum over all groups of sums[n]), of all positions of a team.
template <class T, int Numbers, class Take>
ORTHO_DEVICE void sum_over_groups(const Team& team, T (&sums)[Numbers], T* memory, const Take& take) {
  for (std::int32_t lanes = team.width; lanes < warp_size; lanes *= 2) {
    ORTHO_UNROLL
    for (int n = 0; n < Numbers; ++n) sums[n] += shuffle_xor(sums[n], lanes);
  }
  // Of narrow teams a warp holds several, summed by now, and its first one has the sums.
  const std::int32_t positions = team.width * Numbers;
  const std::int32_t part = team.width < warp_size ? thread_index() / warp_size : team.group;
  const std::int32_t parts = team.groups < pass_warps ? team.groups : pass_warps;
  if (thread_index() % warp_size < team.width) {
    ORTHO_UNROLL
    for (int n = 0; n < Numbers; ++n) memory[part * positions + team.across * Numbers + n] = sums[n];
  }
  block_barrier();
  ORTHO_UNROLL_BY(1)
  for (std::int32_t position = thread_index(); position < positions; position += pass_threads)
    take(position, sum_of_parts(memory + position, parts, positions));
  block_barrier();
}

// take(group, item, sum over a team) of the items of each group. Of these, four threads hold one together:
// sums[q] is of item 4 q + lane % 4.
template <class T, int Quarter, class Take>
ORTHO_DEVICE void sum_over_team(const Team& team, T (&sums)[Quarter], T* memory, const Take& take) {
  for (std::int32_t lanes = 4; lanes < warp_size && lanes < team.width; lanes *= 2) {
    ORTHO_UNROLL
    for (int q = 0; q < Quarter; ++q) sums[q] += shuffle_xor(sums[q], lanes);
  }
  constexpr int items = 4 * Quarter;
  const std::int32_t all = team.groups * items, parts = (team.width + warp_size - 1) / warp_size;
  if (team.across % warp_size < 4) {
    T* const part = memory + team.across / warp_size * all + team.group * items + team.across % 4;
    ORTHO_UNROLL
    for (int q = 0; q < Quarter; ++q) part[4 * q] = sums[q];
  }
  block_barrier();
  ORTHO_UNROLL_BY(1)
  for (std::int32_t i = thread_index(); i < all; i += pass_threads)
    take(i / items, i % items, sum_of_parts(memory + i, parts, all));
  block_barrier();
}

}  // namespace ortho::cuda
