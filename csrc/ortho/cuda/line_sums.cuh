// Sums over lines and over positions of packets, and over the threads that hold their parts: always in the
// same order. `memory` is shared, for part_numbers<S, Count> numbers; `take` gets each sum in one thread.
#pragma once

#include "lines.cuh"
#include "reduce.cuh"
#include "two_float.cuh"

namespace ortho::cuda {

constexpr int pass_warps = pass_threads / warp_size;

// sums[n] += over a thread's lines: number n x the factor of its line, factor(p).
template <class S, class T, int Count, class Factor>
ORTHO_DEVICE void add_lines(const Packet<S> (&packets)[Count], const Factor& factor,
                            T (&sums)[packet_numbers<S>]) {
  ORTHO_UNROLL
  for (int p = 0; p < Count; ++p) {
    const T of_line = factor(p);
    ORTHO_UNROLL
    for (int n = 0; n < packet_numbers<S>; ++n)
      add_product(sums[n], number_from<EntryOf<T>>(packets[p].number(n)), of_line);
  }
}

// sums[q] += over four threads' positions: number n x factors[n], of line 4 q + lane % 4.
template <class S, class T, int Count>
ORTHO_DEVICE void add_positions(const Packet<S> (&packets)[Count], const T (&factors)[packet_numbers<S>],
                                T (&sums)[Count / 4]) {
  ORTHO_UNROLL
  for (int q = 0; q < Count / 4; ++q) {
    T four[4] = {};
    ORTHO_UNROLL
    for (int p = 0; p < 4; ++p) {
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n)
        add_product(four[p], number_from<EntryOf<T>>(packets[4 * q + p].number(n)), factors[n]);
    }
    sums[q] += sum_four_over_four(four);
  }
}

// take(position, sum over all groups of sums[n]), of all positions of a team.
template <class T, int Numbers, class Take>
ORTHO_DEVICE void sum_over_groups(const Team& team, T (&sums)[Numbers], T* memory, const Take& take) {
  for (std::int32_t lanes = team.width; lanes < warp_size; lanes *= 2) {
    ORTHO_UNROLL
    for (int n = 0; n < Numbers; ++n) sums[n] += shuffle_xor(sums[n], lanes);
  }
  const std::int32_t positions = team.width * Numbers;
  const std::int32_t parts = team.groups < pass_warps ? team.groups : pass_warps;
  const std::int32_t groups_of_part = team.groups / parts;
  if (team.group % groups_of_part == 0) {
    ORTHO_UNROLL
    for (int n = 0; n < Numbers; ++n)
      memory[team.group / groups_of_part * positions + team.across * Numbers + n] = sums[n];
  }
  block_barrier();
  for (std::int32_t position = thread_index(); position < positions; position += pass_threads) {
    T sum(0);
    for (std::int32_t part = 0; part < parts; ++part) sum += memory[part * positions + position];
    take(position, sum);
  }
  block_barrier();
}

// take(group, item, sum over a team) of the items of each group. Of these, four threads hold one together:
// sums[q] is of item 4 q + lane % 4.
template <class T, int Quarter, class Take>
ORTHO_DEVICE void sum_over_team(const Team& team, T (&sums)[Quarter], T* memory, const Take& take) {
  const std::int32_t lanes_of_team = team.width < warp_size ? team.width : warp_size;
  for (std::int32_t lanes = 4; lanes < lanes_of_team; lanes *= 2) {
    ORTHO_UNROLL
    for (int q = 0; q < Quarter; ++q) sums[q] += shuffle_xor(sums[q], lanes);
  }
  constexpr int items = 4 * Quarter;
  const std::int32_t all = team.groups * items, parts = team.width / lanes_of_team;
  if (team.across % lanes_of_team < 4) {
    T* const part = memory + team.across / lanes_of_team * all + team.group * items + team.across % 4;
    ORTHO_UNROLL
    for (int q = 0; q < Quarter; ++q) part[4 * q] = sums[q];
  }
  block_barrier();
  for (std::int32_t i = thread_index(); i < all; i += pass_threads) {
    T sum(0);
    for (std::int32_t part = 0; part < parts; ++part) sum += memory[part * all + i];
    take(i / items, i % items, sum);
  }
  block_barrier();
}

}  // namespace ortho::cuda
