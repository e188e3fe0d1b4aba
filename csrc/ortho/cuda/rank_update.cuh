// The gradient of SRIP, g * sum over pairs (p, x) of (p x^T + x p^T) W, of all matrices of a launch. A block
// has a strip of a matrix: it reads the strip for its products with all vectors, four at a time, and writes
// the strip of the gradient from vectors and products alone.
#pragma once

#include "line_sums.cuh"
#include "permutation.cuh"

namespace ortho::cuda {

struct UpdateMatrix : MatrixArguments {
  GradientArguments gradient;
  PermutationArguments permutation;
  std::int32_t log_width, strip, block;
};

struct UpdateArguments {
  const void* factors;  // of the gradients, one a matrix
  const void* vectors;
  std::int32_t pairs;
  std::int32_t items;
  std::int32_t count;
  UpdateMatrix matrices[update_matrices];
};
static_assert(sizeof(UpdateArguments) <= argument_bytes);

// An entry of four vectors.
template <class C>
struct alignas(packet_bytes) Four {
  C of[4];
};

// In a list of pairs the partner of an even vector is the next one, of an odd one the one before.
ORTHO_DEVICE int partner(int vector) { return vector ^ 1; }

template <class C, class S>
class Update {
 public:
  static constexpr int packets_at_once =
      sizeof(C) == sizeof(double) ? 2 * sizeof(S) > 4 ? 4 : 2 : update_packets(sizeof(S));
  static constexpr int written_at_once = 4, numbers = packet_numbers<S>;
  static constexpr int sum_count = pass_threads * numbers;
  static constexpr int product_count = 4 * packets_at_once * (pass_threads / least_update_width);
  static constexpr std::size_t part_bytes =  // of shared memory, in front of products and vectors
      sizeof(C) * (sum_count > product_count ? sum_count : product_count);

  ORTHO_DEVICE Update(const UpdateArguments& arguments, const UpdateMatrix& matrix)
      : arguments_(arguments),
        matrix_(matrix),
        along_depth_(is_depth_major(matrix.order_stride, matrix.depth_stride)),
        team_(matrix.log_width) {}

  // The vectors are taken block by block of the order; one is enough where it is not very long.
  ORTHO_DEVICE void run() {
    const std::int32_t last = (matrix_.order - 1) / matrix_.block * matrix_.block;
    for (std::int32_t entry = 0; entry <= last; entry += matrix_.block) {
      stage(entry);
      multiply(
          lines_of_strip(static_cast<const S*>(matrix_.data), matrix_.order_stride, matrix_.depth_stride),
          entry);
    }
    const GradientArguments& gradient = matrix_.gradient;
    for (std::int32_t entry = last; entry >= 0; entry -= matrix_.block) {
      if (entry < last) stage(entry);
      write(lines_of_strip(static_cast<S*>(gradient.data), gradient.order_stride, gradient.depth_stride),
            entry);
    }
  }

 private:
  // Of the depth: where the strip begins, and how long it is.
  ORTHO_DEVICE std::int32_t first_entry() const {
    return (block_index() - matrix_.first_item) * matrix_.strip;
  }
  ORTHO_DEVICE std::int32_t strip() const {
    const std::int32_t left = matrix_.depth - first_entry();
    return left < matrix_.strip ? left : matrix_.strip;
  }
  // Of W or of its gradient.
  template <class Number>
  ORTHO_DEVICE Lines<Number> lines_of_strip(Number* data, std::int64_t order_stride,
                                            std::int64_t depth_stride) const {
    data += first_entry() * depth_stride;
    return along_depth_ ? lines_of(data, order_stride, depth_stride, matrix_.order, strip(), team_)
                        : lines_of(data, depth_stride, order_stride, strip(), matrix_.order, team_);
  }

  ORTHO_DEVICE std::int32_t fours() const { return (2 * arguments_.pairs + 3) / 4; }
  // A group's lines: in a block of the order, or in the strip.
  ORTHO_DEVICE std::int32_t lines_of_block(std::int32_t entry) const {
    return team_.rounds(matrix_.order - entry < matrix_.block ? matrix_.order - entry : matrix_.block);
  }

  ORTHO_DEVICE static C* parts() { return reinterpret_cast<C*>(shared_memory()); }
  ORTHO_DEVICE Four<C>* products(std::int32_t four) const {
    return reinterpret_cast<Four<C>*>(shared_memory() + part_bytes) + four * matrix_.strip;
  }
  ORTHO_DEVICE Four<C>* vectors(std::int32_t four) const { return products(fours()) + four * matrix_.block; }
  // Neighboring threads read number n of their packets from neighbors in shared memory.
  ORTHO_DEVICE std::int32_t place_of(std::int32_t position) const {
    return position % numbers * team_.width + position / numbers;
  }

  // Brings a block of all vectors into shared memory, four by four; zeros behind the last.
  ORTHO_DEVICE void stage(std::int32_t first) {
    const std::int32_t count = 2 * arguments_.pairs, order = matrix_.order;
    const C* const data = static_cast<const C*>(arguments_.vectors) + count * matrix_.offset;
    for (std::int32_t i = thread_index(); i < matrix_.block; i += pass_threads) {
      const std::int32_t place = along_depth_ ? i : place_of(i);
      const bool is_entry = within(first + i, order);
      const C* const entry = data + (is_entry ? caller_index(matrix_.permutation, first + i) : 0);
      for (std::int32_t four = 0; four < fours(); ++four) {
        Four<C> staged = {};
        ORTHO_UNROLL
        for (int v = 0; v < 4; ++v) {
          if (is_entry && within(4 * four + v, count))
            staged.of[v] = entry[std::int64_t{4 * four + v} * order];
        }
        vectors(four)[place] = staged;
      }
    }
    block_barrier();
  }

  // What a block of the order adds to the product of vector v with an entry of the depth.
  ORTHO_DEVICE void add_to_product(std::int32_t four, std::int32_t place, int v, C sum, bool first) {
    C& product = products(four)[place].of[partner(v)];
    product = first ? sum : product + sum;
  }

  ORTHO_DEVICE void multiply(const Lines<const S>& lines, std::int32_t entry) {
    for (std::int32_t four = 0; four < fours(); ++four) {
      const auto in = [&](auto in_packets) {
        if (along_depth_) {
          multiply_lines<in_packets>(lines, four, entry);
        } else {
          multiply_positions<in_packets>(lines, four, entry);
        }
      };
      if (lines.in_packets) {
        in(std::true_type());
      } else {
        in(std::false_type());
      }
    }
  }

  // Lines along the depth: sums over lines.
  template <bool InPackets>
  ORTHO_DEVICE void multiply_lines(const Lines<const S>& lines, std::int32_t four, std::int32_t entry) {
    const Four<C>* const vector = vectors(four) + team_.group;
    const std::int32_t first = team_.round_of(entry), count = lines_of_block(entry);
    C sums[4][numbers] = {};
    for (std::int32_t line = 0; line < count; line += packets_at_once) {
      Packet<S> packets[packets_at_once];
      load_packets<InPackets>(lines, first + line, team_.across * numbers, packets);
      ORTHO_UNROLL
      for (int p = 0; p < packets_at_once; ++p) {
        const Four<C> of_line = vector[(line + p) << team_.log_groups];
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n) {
          ORTHO_UNROLL
          for (int v = 0; v < 4; ++v) sums[v][n] += number_from<C>(packets[p].number(n)) * of_line.of[v];
        }
      }
    }
    ORTHO_UNROLL
    for (int v = 0; v < 4; ++v) {
      sum_over_groups(team_, sums[v], parts(), [&](std::int32_t position, C sum) {
        add_to_product(four, place_of(position), v, sum, entry == 0);
      });
    }
  }

  // Lines along the order: sums over positions.
  template <bool InPackets>
  ORTHO_DEVICE void multiply_positions(const Lines<const S>& lines, std::int32_t four, std::int32_t entry) {
    Four<C> vector[numbers];
    ORTHO_UNROLL
    for (int n = 0; n < numbers; ++n) vector[n] = vectors(four)[n * team_.width + team_.across];
    for (std::int32_t line = 0; line < team_.rounds(strip()); line += packets_at_once) {
      Packet<S> packets[packets_at_once];
      load_packets<InPackets>(lines, line, entry + team_.across * numbers, packets);
      C sums[packets_at_once];
      ORTHO_UNROLL
      for (int p = 0; p < packets_at_once; ++p) {
        C of_line[4] = {};
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n) {
          ORTHO_UNROLL
          for (int v = 0; v < 4; ++v) of_line[v] += number_from<C>(packets[p].number(n)) * vector[n].of[v];
        }
        sums[p] = sum_four_over_four(of_line);
      }
      sum_over_team(team_, sums, parts(), [&](std::int32_t group, std::int32_t item, C sum) {
        add_to_product(four, group + ((line + item / 4) << team_.log_groups), item % 4, sum, entry == 0);
      });
    }
  }

  ORTHO_DEVICE void write(const Lines<S>& lines, std::int32_t entry) {
    const C scale = static_cast<const C*>(arguments_.factors)[matrix_.index];
    const std::int32_t first = along_depth_ ? team_.round_of(entry) : 0;
    const std::int32_t count = along_depth_ ? lines_of_block(entry) : team_.rounds(strip());
    const std::int32_t position = (along_depth_ ? 0 : entry) + team_.across * numbers;
    for (std::int32_t line = 0; line < count; line += written_at_once) {
      C sums[written_at_once][numbers] = {};
      for (std::int32_t four = 0; four < fours(); ++four) {
        const Four<C>* const of_lines = along_depth_ ? vectors(four) : products(four);
        const Four<C>* const of_positions = along_depth_ ? products(four) : vectors(four);
        add_outer_products(of_lines + (line << team_.log_groups) + team_.group, of_positions + team_.across,
                           sums);
      }
      if (lines.in_packets) {
        write_packets<true>(lines, first + line, position, scale, sums, matrix_.gradient.accumulate);
      } else {
        write_packets<false>(lines, first + line, position, scale, sums, matrix_.gradient.accumulate);
      }
    }
    block_barrier();  // all have read the shared memory
  }

  // sums[p][n] += of line p . of position n
  ORTHO_DEVICE void add_outer_products(const Four<C>* of_lines, const Four<C>* of_positions,
                                       C (&sums)[written_at_once][numbers]) const {
    constexpr int at_once = numbers * sizeof(C) < 16 ? numbers : 16 / sizeof(C);  // positions in registers
    ORTHO_UNROLL
    for (int from = 0; from < numbers; from += at_once) {
      Four<C> of_position[at_once];
      ORTHO_UNROLL
      for (int n = 0; n < at_once; ++n) of_position[n] = of_positions[(from + n) * team_.width];
      ORTHO_UNROLL
      for (int p = 0; p < written_at_once; ++p) {
        const Four<C> of_line = of_lines[p << team_.log_groups];
        ORTHO_UNROLL
        for (int n = 0; n < at_once; ++n) {
          ORTHO_UNROLL
          for (int v = 0; v < 4; ++v) sums[p][from + n] += of_line.of[v] * of_position[n].of[v];
        }
      }
    }
  }

  const UpdateArguments& arguments_;
  const UpdateMatrix& matrix_;
  const bool along_depth_;
  const Team team_;
};

template <class C, class S>
ORTHO_KERNEL(pass_threads, pass_blocks, rank_update, UpdateArguments) {
  const std::int32_t m = find_matrix(arguments.matrices, arguments.count, block_index());
  Update<C, S>(arguments, arguments.matrices[m]).run();
}

}  // namespace ortho::cuda
