// A matrix as lines of packets. A line runs through what lies closest in memory: along the depth or along the
// order. A packet is 16 bytes of a line, which a thread loads or stores at once where memory allows it.
#pragma once

#include <cstring>

#include "arguments.h"
#include "device.cuh"
#include "launch_plan.h"

namespace ortho::cuda {

template <class S>
constexpr int packet_numbers = packet_bytes / sizeof(S);

// Words, not numbers: two 16-bit numbers share a register.
template <class S>
struct alignas(packet_bytes) Packet {
  std::uint32_t words[packet_bytes / sizeof(std::uint32_t)];

  ORTHO_DEVICE S number(int n) const {
    S number;
    memcpy(&number, reinterpret_cast<const unsigned char*>(words) + n * sizeof(S), sizeof(S));
    return number;
  }
  ORTHO_DEVICE void set(int n, S number) {
    memcpy(reinterpret_cast<unsigned char*>(words) + n * sizeof(S), &number, sizeof(S));
  }
};

template <class S>
struct Lines {
  S* data;
  std::int64_t line_step, step;  // to the next line, and along a line, in numbers
  std::int32_t count, length;
  bool in_packets;  // all of them are whole and aligned
};

// From the strides of a matrix or of its gradient.
template <class S>
ORTHO_DEVICE Lines<S> lines_of(S* data, std::int64_t order_stride, std::int64_t depth_stride,
                               const MatrixArguments& matrix, bool along_depth) {
  Lines<S> lines{data,
                 along_depth ? order_stride : depth_stride,
                 along_depth ? depth_stride : order_stride,
                 matrix.order,
                 matrix.depth,
                 false};
  if (!along_depth) {
    lines.count = matrix.depth;
    lines.length = matrix.order;
  }
  const std::int64_t starts = reinterpret_cast<std::intptr_t>(data) | lines.line_step * sizeof(S);
  lines.in_packets = lines.step == 1 && lines.length % packet_numbers<S> == 0 && starts % packet_bytes == 0;
  return lines;
}

// How the threads of a block share lines. A team, `width` threads, lies across a line with a packet each; the
// block has `groups` of them, on lines that are neighbors.
struct Team {
  ORTHO_DEVICE explicit Team(std::int32_t width)
      : width(width),
        groups(pass_threads / width),
        group(thread_index() / width),
        across(thread_index() % width) {}
  std::int32_t width, groups, group, across;
};

// A thread's packets at a position of the lines group, group + groups, ... behind the first; zeros beyond the
// matrix.
template <class S, int Count>
ORTHO_DEVICE void load_packets(const Lines<const S>& lines, const Team& team, std::int32_t first_line,
                               std::int32_t position, Packet<S> (&packets)[Count]) {
  std::int32_t line = first_line + team.group;
  const S* address = lines.data + line * lines.line_step + position * lines.step;
  const std::int64_t jump = team.groups * lines.line_step;
  ORTHO_UNROLL
  for (int p = 0; p < Count; ++p) packets[p] = {};
  if (lines.in_packets) {
    const std::int32_t count = within(position, lines.length) ? lines.count : 0;
    ORTHO_UNROLL
    for (int p = 0; p < Count; ++p, line += team.groups, address += jump) {
      if (within(line, count)) packets[p] = *reinterpret_cast<const Packet<S>*>(address);
    }
  } else {
    ORTHO_UNROLL
    for (int p = 0; p < Count; ++p, line += team.groups, address += jump) {
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n) {
        if (within(line, lines.count) && within(position + n, lines.length))
          packets[p].set(n, address[n * lines.step]);
      }
    }
  }
}

// Writes scale x sums, or adds it to what is there, where load_packets would have read.
template <class S, class C, int Count>
ORTHO_DEVICE void write_packets(const Lines<S>& lines, const Team& team, std::int32_t first_line,
                                std::int32_t position, C scale, const C (&sums)[Count][packet_numbers<S>],
                                bool accumulate) {
  std::int32_t line = first_line + team.group;
  S* address = lines.data + line * lines.line_step + position * lines.step;
  const std::int64_t jump = team.groups * lines.line_step;
  if (lines.in_packets) {
    const std::int32_t count = within(position, lines.length) ? lines.count : 0;
    ORTHO_UNROLL
    for (int p = 0; p < Count; ++p, line += team.groups, address += jump) {
      if (!within(line, count)) continue;
      auto* const target = reinterpret_cast<Packet<S>*>(address);
      Packet<S> packet = {};
      if (accumulate) packet = *target;
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n) {
        const C there = accumulate ? number_from<C>(packet.number(n)) : C(0);
        packet.set(n, stored_from<S>(there + scale * sums[p][n]));
      }
      *target = packet;
    }
  } else {
    ORTHO_UNROLL
    for (int p = 0; p < Count; ++p, line += team.groups, address += jump) {
      ORTHO_UNROLL
      for (int n = 0; n < packet_numbers<S>; ++n) {
        if (within(line, lines.count) && within(position + n, lines.length))
          write_gradient(address + n * lines.step, scale * sums[p][n], accumulate);
      }
    }
  }
}

}  // namespace ortho::cuda
