// Passes over W with vectors: W_b (W_b^T x) for a range of strips of the depth. W is used twice: the first
// use gives the strip's entries of W^T x, the second adds them into the product.
//
// In between, a strip stays in the registers of its block, so that W is read once. Where the order is too
// long for that it is taken block by block, and the second use loads it again. So are lines that are no
// packets.
#pragma once

#include <algorithm>

#include "line_sums.cuh"

namespace ortho::cuda {

// A block's shared memory. What belongs to lines is stored group by group, with a gap between that spares
// bank conflicts.
template <class T, class S>
struct PassMemory {
  static constexpr int packets = pass_packets(sizeof(S)), line_pitch = packets + 2;
  static constexpr int line_count = line_pitch * (pass_threads / least_width);  // at most, as the next two
  static constexpr int position_count = pass_threads * packet_numbers<S>;
  static constexpr int strip_count = most_depth_width * packet_numbers<S>;
  static constexpr int part_count = std::max(position_count, line_count);
  static constexpr int sum_count = std::max(strip_count, line_count);
  static constexpr int kept_count = std::max(position_count, line_count + packets / 4 * pass_threads);
  static constexpr int slots = 2;
  static constexpr std::size_t bytes =
      sizeof(T) * (part_count + sum_count + kept_count) + sizeof(std::int32_t) * slots * pass_threads;

  // Parts of sums.
  ORTHO_DEVICE static T* parts() { return reinterpret_cast<T*>(shared_memory()); }
  // A strip's entries of W^T x.
  ORTHO_DEVICE static T* sums() { return parts() + part_count; }
  ORTHO_DEVICE static T* vector() { return sums() + sum_count; }
  ORTHO_DEVICE static std::int32_t place_of(std::int32_t group, std::int32_t item) {
    return group * line_pitch + item;
  }
  // What a thread keeps from strip to strip, and what it needs behind a pass: a pass needs all registers. Of
  // lines along the depth, behind the vector; of lines along the order, in its place.
  ORTHO_DEVICE static T& kept_of_line(int q) {
    return vector()[line_count + q * pass_threads + thread_index()];
  }
  ORTHO_DEVICE static T& kept_of_position(int n) { return vector()[n * pass_threads + thread_index()]; }
  ORTHO_DEVICE static std::int32_t& kept(int slot) {
    return reinterpret_cast<std::int32_t*>(vector() + kept_count)[slot * pass_threads + thread_index()];
  }
};

// Packets of a thread between two barriers.
template <class S, bool InPackets, bool Stays>
constexpr int packets_at_once = Stays       ? pass_packets(sizeof(S))
                                : InPackets ? 8
                                            : 4;

// Adds to what the strips before the first have left.
template <class T>
ORTHO_DEVICE void put_product(T* product, T sum, bool first) {
  if (!first) sum += *product;
  *product = sum;
}

// For the second use of packets, which stay or come again.
template <bool InPackets, bool Stays, class S, int Count>
ORTHO_DEVICE void load_again(const Lines<const S>& lines, std::int32_t first, std::int32_t position,
                             Packet<S> (&packets)[Count]) {
  if constexpr (Stays) {
    renew_packets(packets);
  } else {
    load_packets<InPackets>(lines, first, position, packets);
  }
}

// Lines along the depth. A block of the order is as many lines as the threads have packets, a strip as many
// positions as a team has.
template <bool InPackets, bool Stays, class T, class S, class Product>
ORTHO_DEVICE void pass_along_depth(const Lines<const S>& lines, const Team& team, std::int32_t order,
                                   std::int32_t begin, std::int32_t end, const T* vector,
                                   const Product& product) {
  using Memory = PassMemory<T, S>;
  constexpr int numbers = packet_numbers<S>, count = packets_at_once<S, InPackets, Stays>;
  const std::int32_t last = Stays ? 0 : (team.rounds(order) - 1) / count * count;
  Packet<S> packets[count];

  // From these lines of each group on.
  const auto stage_vector = [&](std::int32_t first) {
    ORTHO_UNROLL_BY(1)
    for (std::int32_t i = thread_index(); i < count << team.log_groups; i += pass_threads) {
      const std::int32_t entry = (first << team.log_groups) + i;
      Memory::vector()[Memory::place_of(team.group_of(i), team.round_of(i))] =
          within(entry, order) ? read_past_l1(vector + entry) : T(0);
    }
    block_barrier();
  };
  const auto put_products = [&](T(&products)[count / 4], std::int32_t first, bool first_strip) {
    sum_over_team(team, products, Memory::parts(), [&](std::int32_t group, std::int32_t item, const T& sum) {
      const std::int32_t entry = group + ((first + item) << team.log_groups);
      if (within(entry, order)) put_product(product() + entry, sum, first_strip);
    });
  };

  if (Stays) {
    stage_vector(0);
    ORTHO_UNROLL
    for (int q = 0; q < count / 4; ++q) Memory::kept_of_line(q) = T(0);
  }
  for (std::int32_t strip = begin; strip < end; ++strip) {
    const std::int32_t position = (strip * team.width + team.across) * numbers;
    T sums[numbers] = {};
    std::int32_t first = 0;
    do {
      load_packets<InPackets>(lines, first, position, packets);
      if (!Stays) stage_vector(first);
      add_lines(packets, Memory::vector() + Memory::place_of(team.group, 0), sums);
      if (!Stays) block_barrier();  // all have read the vector
    } while (!Stays && (first += count) <= last);
    sum_over_groups(team, sums, Memory::parts(),
                    [](std::int32_t i, const T& sum) { Memory::sums()[i] = sum; });
    first = last;
    do {
      load_again<InPackets, Stays>(lines, first, position, packets);
      T products[count / 4];
      ORTHO_UNROLL
      for (int q = 0; q < count / 4; ++q) {
        ORTHO_UNROLL  // reads again: else all sums would be formed before the first is put away
            for (int n = 0; n < numbers; ++n) sums[n] = Memory::sums()[team.across * numbers + n];
        products[q] = sum_of_positions(packets, q, sums);
        if (Stays) Memory::kept_of_line(q) += products[q];
      }
      if (!Stays) put_products(products, first, strip == begin);
    } while (!Stays && (first -= count) >= 0);
  }
  if (Stays) {
    T products[count / 4];
    ORTHO_UNROLL
    for (int q = 0; q < count / 4; ++q) products[q] = Memory::kept_of_line(q);
    put_products(products, 0, true);
  }
}

// Lines along the order. A block of the order is as many positions as a team has, a strip as many lines as
// the threads have packets if these stay.
template <bool InPackets, bool Stays, class T, class S, class Product>
ORTHO_DEVICE void pass_along_order(const Lines<const S>& lines, const Team& team, std::int32_t order,
                                   std::int32_t begin, std::int32_t end, const T* vector,
                                   const Product& product) {
  using Memory = PassMemory<T, S>;
  constexpr int numbers = packet_numbers<S>, count = packets_at_once<S, InPackets, Stays>;
  const std::int32_t block = team.width * numbers, last = Stays ? 0 : (order - 1) / block * block;
  Packet<S> packets[count];

  const auto put_products = [&](T(&products)[numbers], std::int32_t first, bool first_lines) {
    sum_over_groups(team, products, Memory::parts(), [&](std::int32_t i, const T& sum) {
      if (within(first + i, order)) put_product(product() + first + i, sum, first_lines);
    });
  };

  if (Stays) {
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n) Memory::kept_of_position(n) = T(0);
  }
  const std::int32_t begin_line = begin * pass_packets(sizeof(S)), end_line = end * pass_packets(sizeof(S));
  for (std::int32_t line = begin_line; line < end_line; line += count) {
    T sums[count / 4] = {};
    std::int32_t first = 0;
    do {
      const std::int32_t position = first + team.across * numbers;
      load_packets<InPackets>(lines, line, position, packets);
      T factors[numbers];
      ORTHO_UNROLL
      for (int n = 0; n < numbers; ++n)
        factors[n] = within(position + n, order) ? read_past_l1(vector + position + n) : T(0);
      ORTHO_UNROLL
      for (int q = 0; q < count / 4; ++q) sums[q] += sum_of_positions(packets, q, factors);
    } while (!Stays && (first += block) <= last);
    sum_over_team(team, sums, Memory::parts(), [&](std::int32_t group, std::int32_t item, const T& sum) {
      Memory::sums()[Memory::place_of(group, item)] = sum;
    });
    first = last;
    do {
      load_again<InPackets, Stays>(lines, line, first + team.across * numbers, packets);
      T products[numbers] = {};
      add_lines(packets, Memory::sums() + Memory::place_of(team.group, 0), products);
      if (Stays) {
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n) Memory::kept_of_position(n) += products[n];
      } else {
        put_products(products, first, line == begin_line);
      }
    } while (!Stays && (first -= block) >= 0);
  }
  if (Stays) {
    T products[numbers];
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n) products[n] = Memory::kept_of_position(n);
    put_products(products, 0, true);
  }
}

// Writes W_b (W_b^T vector), where W_b are the strips [begin, end) of W, to product(): its address takes
// registers only when it is asked for.
template <class T, class S, class M, class Product>
ORTHO_DEVICE void gram_times_vector(const M& matrix, std::int32_t begin, std::int32_t end, const T* vector,
                                    const Product& product) {
  const auto* const data = static_cast<const S*>(matrix.data);
  const Team team(matrix.log_width);
  const bool along_depth = is_depth_major(matrix.order_stride, matrix.depth_stride);
  const auto pass = [&](auto in_packets, auto stays, const Lines<const S>& lines) {
    if (along_depth) {
      pass_along_depth<in_packets, stays, T, S>(lines, team, matrix.order, begin, end, vector, product);
    } else {
      pass_along_order<in_packets, stays, T, S>(lines, team, matrix.order, begin, end, vector, product);
    }
  };
  const Lines<const S> lines =
      along_depth
          ? lines_of(data, matrix.order_stride, matrix.depth_stride, matrix.order, matrix.depth, team)
          : lines_of(data, matrix.depth_stride, matrix.order_stride, matrix.depth, matrix.order, team);
  const std::int32_t most =
      along_depth ? pass_packets(sizeof(S)) * team.groups : team.width * packet_numbers<S>;
  if (!lines.in_packets) {
    pass(std::false_type(), std::false_type(), lines);
  } else if (matrix.order <= most) {
    pass(std::true_type(), std::true_type(), lines);
  } else {
    pass(std::true_type(), std::false_type(), lines);
  }
}

}  // namespace ortho::cuda
