// Passes over W with vectors: W_b (W_b^T x) for a range of strips of the depth. W is used twice: the first
// use gives the strip's entries of W^T x, the second adds them into the product.
//
// In between, a strip stays in the registers of its block, so that W is read once. Where the order is too
// long for that it is taken block by block, and the second use loads it again. So are lines that are no
// packets.
#pragma once

#include "line_sums.cuh"

namespace ortho::cuda {

// Of a block's shared memory: parts of sums, a strip's entries of W^T x, and entries of x. What belongs to
// lines is kept group by group, with a gap between that spares bank conflicts.
template <class T, class S>
struct PassMemory {
  static constexpr int line_pitch = pass_packets(sizeof(S)) + 2;
  static constexpr int sum_count = pass_threads * packet_numbers<S>;            // positions
  static constexpr int line_count = line_pitch * (pass_threads / least_width);  // lines, at most
  static constexpr int part_count = sum_count > line_count ? sum_count : line_count;
  static constexpr std::size_t bytes = sizeof(T) * (2 * part_count + line_count);

  ORTHO_DEVICE static T* parts() { return reinterpret_cast<T*>(shared_memory()); }
  ORTHO_DEVICE static T* sums() { return parts() + part_count; }
  ORTHO_DEVICE static T* vector() { return sums() + part_count; }
  ORTHO_DEVICE static std::int32_t place_of(std::int32_t group, std::int32_t item) {
    return group * line_pitch + item;
  }
};

// Packets of a thread between two barriers.
template <class S, bool Stays>
constexpr int packets_at_once = Stays ? pass_packets(sizeof(S)) : 8;

// Adds to what the strips before the first have left.
template <class T>
ORTHO_DEVICE void put_product(T* product, T sum, bool first) {
  if (!first) sum += *product;
  *product = sum;
}

template <class T, int Count>
ORTHO_DEVICE void clear(T (&sums)[Count]) {
  ORTHO_UNROLL
  for (T& sum : sums) sum = T(0);
}

// Lines along the depth. A block of the order is as many lines as the threads have packets, a strip as many
// positions as a team has.
template <bool InPackets, bool Stays, class T, class S>
ORTHO_DEVICE void pass_along_depth(const Lines<const S>& lines, const Team& team, std::int32_t order,
                                   std::int32_t begin, std::int32_t end, const T* vector, T* product) {
  using Memory = PassMemory<T, S>;
  constexpr int numbers = packet_numbers<S>, count = packets_at_once<S, Stays>;
  const std::int32_t last = Stays ? 0 : (team.rounds(order) - 1) / count * count;
  Packet<S> packets[count];
  T products[count / 4] = {};

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
  const auto load_again = [&](std::int32_t first, std::int32_t position) {
    if constexpr (Stays) {
      renew_packets(packets);
    } else {
      load_packets<InPackets>(lines, first, position, packets);
    }
  };
  const auto put_products = [&](std::int32_t first, bool first_strip) {
    sum_over_team(team, products, Memory::parts(), [&](std::int32_t group, std::int32_t item, const T& sum) {
      const std::int32_t entry = group + ((first + item) << team.log_groups);
      if (within(entry, order)) put_product(product + entry, sum, first_strip);
    });
  };

  if (Stays) stage_vector(0);
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
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n) sums[n] = Memory::sums()[team.across * numbers + n];
    first = last;
    do {
      load_again(first, position);
      add_positions(packets, sums, products);
      if (!Stays) {
        put_products(first, strip == begin);
        clear(products);
      }
    } while (!Stays && (first -= count) >= 0);
  }
  if (Stays) put_products(0, true);
}

// Lines along the order. A block of the order is as many positions as a team has, a strip as many lines as
// the threads have packets if these stay.
template <bool InPackets, bool Stays, class T, class S>
ORTHO_DEVICE void pass_along_order(const Lines<const S>& lines, const Team& team, std::int32_t order,
                                   std::int32_t begin, std::int32_t end, const T* vector, T* product) {
  using Memory = PassMemory<T, S>;
  constexpr int numbers = packet_numbers<S>, count = packets_at_once<S, Stays>;
  const std::int32_t block = team.width * numbers, last = Stays ? 0 : (order - 1) / block * block;
  Packet<S> packets[count];
  T factors[numbers], products[numbers] = {};

  const auto load_factors = [&](std::int32_t position) {
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n)
      factors[n] = within(position + n, order) ? read_past_l1(vector + position + n) : T(0);
  };
  const auto load_again = [&](std::int32_t line, std::int32_t position) {
    if constexpr (Stays) {
      renew_packets(packets);
    } else {
      load_packets<InPackets>(lines, line, position, packets);
    }
  };
  const auto put_products = [&](std::int32_t first, bool first_lines) {
    sum_over_groups(team, products, Memory::parts(), [&](std::int32_t i, const T& sum) {
      if (within(first + i, order)) put_product(product + first + i, sum, first_lines);
    });
  };

  if (Stays) load_factors(team.across * numbers);
  const std::int32_t begin_line = begin * pass_packets(sizeof(S)), end_line = end * pass_packets(sizeof(S));
  for (std::int32_t line = begin_line; line < end_line; line += count) {
    T sums[count / 4] = {};
    std::int32_t first = 0;
    do {
      const std::int32_t position = first + team.across * numbers;
      load_packets<InPackets>(lines, line, position, packets);
      if (!Stays) load_factors(position);
      add_positions(packets, factors, sums);
    } while (!Stays && (first += block) <= last);
    sum_over_team(team, sums, Memory::parts(), [&](std::int32_t group, std::int32_t item, const T& sum) {
      Memory::sums()[Memory::place_of(group, item)] = sum;
    });
    first = last;
    do {
      load_again(line, first + team.across * numbers);
      add_lines(packets, Memory::sums() + Memory::place_of(team.group, 0), products);
      if (!Stays) {
        put_products(first, line == begin_line);
        clear(products);
      }
    } while (!Stays && (first -= block) >= 0);
  }
  if (Stays) put_products(0, true);
}

// product = W_b (W_b^T vector), where W_b are the strips [begin, end) of W.
template <class T, class S, class M>
ORTHO_DEVICE void gram_times_vector(const M& matrix, std::int32_t begin, std::int32_t end, const T* vector,
                                    T* product) {
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
