// Passes over W with vectors: W_b (W_b^T x) for a range of strips of the depth. W is used twice: the first
// use gives the strip's entries of W^T x, the second adds them into the product. In between, a strip stays in
// the registers of its block, so that W is read once. Where the order is too long for that it is taken block
// by block, and the second use loads it again.
#pragma once

#include "line_sums.cuh"

namespace ortho::cuda {

// Of a block's shared memory: parts of sums, a strip's entries of W^T x, and a block of the vector.
template <class T, class S>
struct PassMemory {
  static constexpr int packets = pass_packets(sizeof(S));
  static constexpr int sum_count = pass_threads * packet_numbers<S>;         // positions, at most
  static constexpr int line_count = packets * (pass_threads / least_width);  // lines of a strip, at most
  static constexpr int part_count = sum_count > line_count ? sum_count : line_count;
  static constexpr std::size_t bytes = sizeof(T) * (2 * part_count + line_count);

  ORTHO_DEVICE static T* parts() { return reinterpret_cast<T*>(shared_memory()); }
  ORTHO_DEVICE static T* sums() { return parts() + part_count; }
  ORTHO_DEVICE static T* vector() { return sums() + part_count; }
};

template <class T>
ORTHO_DEVICE void put_product(T* product, T sum, bool first) {
  if (!first) sum += *product;
  *product = sum;
}

// Lines along the depth: those of a block of the order, and a strip is as many positions as a team has.
template <class T, class S>
ORTHO_DEVICE void pass_along_depth(const Lines<const S>& lines, const Team& team, std::int32_t begin,
                                   std::int32_t end, const T* vector, T* product) {
  using Memory = PassMemory<T, S>;
  constexpr int numbers = packet_numbers<S>;
  const std::int32_t block = Memory::packets * team.groups;
  const std::int32_t blocks = (lines.count + block - 1) / block;
  const bool stays = blocks == 1;
  Packet<S> packets[Memory::packets];
  T products[Memory::packets / 4] = {};

  const auto stage_vector = [&](std::int32_t first) {
    for (std::int32_t i = thread_index(); i < block; i += pass_threads)
      Memory::vector()[i] = within(first + i, lines.count) ? read_past_l1(vector + first + i) : T(0);
    block_barrier();
  };
  const auto put_products = [&](std::int32_t first, bool first_strip) {
    sum_over_team(team, products, Memory::parts(), [&](std::int32_t group, std::int32_t item, const T& sum) {
      const std::int32_t line = first + group + item * team.groups;
      if (within(line, lines.count)) put_product(product + line, sum, first_strip);
    });
  };

  for (std::int32_t strip = begin; strip < end; ++strip) {
    const std::int32_t position = (strip * team.width + team.across) * numbers;
    T sums[numbers] = {};
    for (std::int32_t b = 0; b < blocks; ++b) {
      load_packets(lines, team, b * block, position, packets);
      if (!stays || strip == begin) stage_vector(b * block);
      add_lines(packets, [&](int p) { return Memory::vector()[team.group + p * team.groups]; }, sums);
      if (!stays) block_barrier();  // all have read the vector's block
    }
    sum_over_groups(team, sums, Memory::parts(),
                    [](std::int32_t i, const T& sum) { Memory::sums()[i] = sum; });
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n) sums[n] = Memory::sums()[team.across * numbers + n];
    for (std::int32_t b = blocks - 1; b >= 0; --b) {
      if (b < blocks - 1) load_packets(lines, team, b * block, position, packets);
      add_positions(packets, sums, products);
      if (stays) continue;
      put_products(b * block, strip == begin);
      ORTHO_UNROLL
      for (T& sum : products) sum = T(0);
    }
  }
  if (stays) put_products(0, true);
}

// Lines along the order: a team has a block of the order's positions, and a strip is as many lines as the
// registers hold.
template <class T, class S>
ORTHO_DEVICE void pass_along_order(const Lines<const S>& lines, const Team& team, std::int32_t begin,
                                   std::int32_t end, const T* vector, T* product) {
  using Memory = PassMemory<T, S>;
  constexpr int numbers = packet_numbers<S>;
  const std::int32_t block = team.width * numbers;
  const std::int32_t blocks = (lines.length + block - 1) / block;
  const bool stays = blocks == 1;
  Packet<S> packets[Memory::packets];
  T factors[numbers], products[numbers] = {};

  const auto load_factors = [&](std::int32_t position) {
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n)
      factors[n] = within(position + n, lines.length) ? read_past_l1(vector + position + n) : T(0);
  };
  const auto put_products = [&](std::int32_t first, bool first_strip) {
    sum_over_groups(team, products, Memory::parts(), [&](std::int32_t i, const T& sum) {
      if (within(first + i, lines.length)) put_product(product + first + i, sum, first_strip);
    });
  };

  for (std::int32_t strip = begin; strip < end; ++strip) {
    const std::int32_t line = strip * Memory::packets * team.groups;
    T sums[Memory::packets / 4] = {};
    for (std::int32_t b = 0; b < blocks; ++b) {
      const std::int32_t position = b * block + team.across * numbers;
      load_packets(lines, team, line, position, packets);
      if (!stays || strip == begin) load_factors(position);
      add_positions(packets, factors, sums);
    }
    sum_over_team(team, sums, Memory::parts(), [&](std::int32_t group, std::int32_t item, const T& sum) {
      Memory::sums()[group + item * team.groups] = sum;
    });
    for (std::int32_t b = blocks - 1; b >= 0; --b) {
      if (b < blocks - 1) load_packets(lines, team, line, b * block + team.across * numbers, packets);
      add_lines(packets, [&](int p) { return Memory::sums()[team.group + p * team.groups]; }, products);
      if (stays) continue;
      put_products(b * block, strip == begin);
      ORTHO_UNROLL
      for (T& sum : products) sum = T(0);
    }
  }
  if (stays) put_products(0, true);
}

// product = W_b (W_b^T vector), where W_b are the strips [begin, end) of W.
template <class T, class S, class M>
ORTHO_DEVICE void gram_times_vector(const M& matrix, std::int32_t begin, std::int32_t end, const T* vector,
                                    T* product) {
  const bool along_depth = is_depth_major(matrix.order_stride, matrix.depth_stride);
  const Lines<const S> lines = lines_of(static_cast<const S*>(matrix.data), matrix.order_stride,
                                        matrix.depth_stride, matrix, along_depth);
  const Team team(matrix.width);
  if (along_depth) {
    pass_along_depth<T, S>(lines, team, begin, end, vector, product);
  } else {
    pass_along_order<T, S>(lines, team, begin, end, vector, product);
  }
}

}  // namespace ortho::cuda
