// A matrix as lines of packets. A line runs through what lies closest in memory: along the depth or along the
// order. A packet is 16 bytes of a line, which a thread loads or stores at once where memory allows it.
#pragma once

#include "arguments.h"
#include "packet.cuh"

namespace ortho::cuda {

constexpr int log_pass_threads = 8;
static_assert(pass_threads == 1 << log_pass_threads);

// How the threads of a block share lines. A team, `width` threads, lies across a line with a packet each; the
// block has `groups` of them, on lines that are neighbors. Both are powers of two.
struct Team {
  ORTHO_DEVICE explicit Team(std::int32_t log_width)
      : log_groups(log_pass_threads - log_width),
        width(1 << log_width),
        groups(1 << log_groups),
        group(thread_index() >> log_width),
        across(thread_index() & (width - 1)) {}
  // Of so many lines, those of the first group, which has the most.
  ORTHO_DEVICE std::int32_t rounds(std::int32_t lines) const { return (lines + groups - 1) >> log_groups; }
  // Whose a line is, and which of its lines: group g has the lines g, g + groups, ...
  ORTHO_DEVICE std::int32_t group_of(std::int32_t line) const { return line & (groups - 1); }
  ORTHO_DEVICE std::int32_t round_of(std::int32_t line) const { return line >> log_groups; }

  std::int32_t log_groups, width, groups, group, across;
};

// The lines of a thread's group.
template <class S>
struct Lines {
  S* data;
  std::int64_t line_step, step;  // to the next line, and along a line, in numbers
  std::int32_t count, length;
  bool in_packets;  // all of them are whole and aligned
};

// `count` lines, of which neighbors are line_step apart in memory.
template <class S>
ORTHO_DEVICE Lines<S> lines_of(S* data, std::int64_t line_step, std::int64_t step, std::int32_t count,
                               std::int32_t length, const Team& team) {
  const std::int64_t starts = reinterpret_cast<std::intptr_t>(data) | line_step * sizeof(S);
  return {data + team.group * line_step,
          line_step << team.log_groups,
          step,
          team.rounds(count - team.group),
          length,
          step == 1 && length % packet_numbers<S> == 0 && starts % packet_bytes == 0};
}

// A thread's packets at a position of its lines from `first` on; zeros beyond the matrix. InPackets: as the
// lines say.
template <bool InPackets, class S, int Count>
ORTHO_DEVICE void load_packets(const Lines<const S>& lines, std::int32_t first, std::int32_t position,
                               Packet<S> (&packets)[Count]) {
  const S* address = lines.data + first * lines.line_step + position * (InPackets ? 1 : lines.step);
  ORTHO_UNROLL
  for (int p = 0; p < Count; ++p, address += lines.line_step) {
    packets[p] = {};
    if constexpr (InPackets) {
      const std::int32_t count = within(position, lines.length) ? lines.count - first : 0;
      if (within(p, count)) packets[p] = read_constant(reinterpret_cast<const Packet<S>*>(address));
    } else {
      const std::int32_t numbers = within(p, lines.count - first) ? lines.length - position : 0;
      const S* number = address;
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n, number += lines.step) {
        if (within(n, numbers)) packets[p].set(n, *number);
      }
      separate_loads();
    }
  }
}

// Packets that stay in registers for another use are converted anew: converted, they are too many.
template <class S, int Count>
ORTHO_DEVICE void renew_packets(Packet<S> (&packets)[Count]) {
  ORTHO_UNROLL
  for (Packet<S>& packet : packets) {
    ORTHO_UNROLL
    for (std::uint32_t& word : packet.words) renew(word);
  }
}

// Writes scale x sums, or adds it to what is there, where load_packets reads.
template <bool InPackets, class S, class C, int Count>
ORTHO_DEVICE void write_packets(const Lines<S>& lines, std::int32_t first, std::int32_t position, C scale,
                                const C (&sums)[Count][packet_numbers<S>], bool accumulate) {
  S* address = lines.data + first * lines.line_step + position * (InPackets ? 1 : lines.step);
  ORTHO_UNROLL
  for (int p = 0; p < Count; ++p, address += lines.line_step) {
    if constexpr (InPackets) {
      const std::int32_t count = within(position, lines.length) ? lines.count - first : 0;
      if (!within(p, count)) continue;
      auto* const target = reinterpret_cast<Packet<S>*>(address);
      Packet<S> packet = {};
      if (accumulate) packet = *target;
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n)
        packet.set(n, stored_from<S>(number_from<C>(packet.number(n)) + scale * sums[p][n]));
      *target = packet;
    } else {
      const std::int32_t numbers = within(p, lines.count - first) ? lines.length - position : 0;
      S* number = address;
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n, number += lines.step) {
        if (within(n, numbers)) write_gradient(number, scale * sums[p][n], accumulate);
      }
    }
  }
}

}  // namespace ortho::cuda
