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
  std::int32_t width, strip;
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
  static constexpr int packets_at_once = update_packets(sizeof(S));
  static constexpr int numbers = packet_numbers<S>;
  static constexpr int sum_count = pass_threads * numbers;
  static constexpr int product_count = 4 * packets_at_once * (pass_threads / least_update_width);
  static constexpr int part_count = sum_count > product_count ? sum_count : product_count;
  static constexpr int most_fours = fours_bytes / sizeof(Four<C>);
  static constexpr std::size_t shared_bytes = part_count * sizeof(C) + fours_bytes;  // and the products

  ORTHO_DEVICE Update(const UpdateArguments& arguments, const UpdateMatrix& matrix, std::int32_t first)
      : arguments_(arguments),
        matrix_(matrix),
        along_depth_(is_depth_major(matrix.order_stride, matrix.depth_stride)),
        team_(matrix.width),
        lines_(strip_of(static_cast<const S*>(matrix.data), matrix.order_stride, matrix.depth_stride, first)),
        target_(strip_of(static_cast<S*>(matrix.gradient.data), matrix.gradient.order_stride,
                         matrix.gradient.depth_stride, first)) {}

  ORTHO_DEVICE void run() {
    for (std::int32_t four = 0; four < fours(); ++four) {
      if (along_depth_) {
        multiply_lines(four);
      } else {
        multiply_positions(four);
      }
    }
    write();
  }

 private:
  // The strip of W, or of its gradient, that begins at this entry of the depth.
  template <class Number>
  ORTHO_DEVICE Lines<Number> strip_of(Number* data, std::int64_t order_stride, std::int64_t depth_stride,
                                      std::int32_t first) const {
    Lines<Number> lines =
        lines_of(data + first * depth_stride, order_stride, depth_stride, matrix_, along_depth_);
    std::int32_t& depth = along_depth_ ? lines.length : lines.count;
    depth = depth - first < matrix_.strip ? depth - first : matrix_.strip;
    return lines;
  }

  ORTHO_DEVICE std::int32_t fours() const { return (2 * arguments_.pairs + 3) / 4; }
  ORTHO_DEVICE std::int32_t batch() const { return packets_at_once * team_.groups; }  // of lines
  // Entries of the order whose vectors are in shared memory together.
  ORTHO_DEVICE std::int32_t block() const { return along_depth_ ? most_fours : team_.width * numbers; }

  ORTHO_DEVICE static C* parts() { return reinterpret_cast<C*>(shared_memory()); }
  ORTHO_DEVICE static Four<C>* vectors() { return reinterpret_cast<Four<C>*>(parts() + part_count); }
  ORTHO_DEVICE Four<C>* products(std::int32_t four) const {
    return vectors() + most_fours + four * matrix_.strip;
  }
  // Neighboring threads read number n of their packets from neighbors in shared memory.
  ORTHO_DEVICE std::int32_t place_of(std::int32_t position) const {
    return position % numbers * team_.width + position / numbers;
  }

  // Brings four vectors from this entry on into shared memory, unless they are there; zeros behind the last.
  ORTHO_DEVICE void stage(std::int32_t four, std::int32_t first) {
    if (staged_four_ == four && staged_first_ == first) return;
    staged_four_ = four;
    staged_first_ = first;
    const std::int32_t count = 2 * arguments_.pairs, order = matrix_.order;
    const C* const data = static_cast<const C*>(arguments_.vectors) + count * matrix_.offset;
    block_barrier();  // all have read those before
    for (std::int32_t i = thread_index(); i < block(); i += pass_threads) {
      Four<C> entry = {};
      if (within(first + i, order)) {
        const C* const address = data + caller_index(matrix_.permutation, first + i);
        ORTHO_UNROLL
        for (int v = 0; v < 4; ++v)
          if (within(4 * four + v, count)) entry.of[v] = address[std::int64_t{4 * four + v} * order];
      }
      vectors()[along_depth_ ? i : place_of(i)] = entry;
    }
    block_barrier();
  }

  // Products with lines along the depth: sums over lines.
  ORTHO_DEVICE void multiply_lines(std::int32_t four) {
    C sums[4][numbers] = {};
    for (std::int32_t first = 0; first < lines_.count; first += batch()) {
      Packet<S> packets[packets_at_once];
      load_packets(lines_, team_, first, team_.across * numbers, packets);
      stage(four, first / block() * block());
      ORTHO_UNROLL
      for (int p = 0; p < packets_at_once; ++p) {
        const Four<C> vector = vectors()[first % block() + team_.group + p * team_.groups];
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n) {
          const C entry = number_from<C>(packets[p].number(n));
          ORTHO_UNROLL
          for (int v = 0; v < 4; ++v) sums[v][n] += entry * vector.of[v];
        }
      }
    }
    ORTHO_UNROLL
    for (int v = 0; v < 4; ++v) {
      sum_over_groups(team_, sums[v], parts(), [&](std::int32_t position, C sum) {
        products(four)[place_of(position)].of[partner(v)] = sum;
      });
    }
  }

  // Products with lines along the order: sums over positions.
  ORTHO_DEVICE void multiply_positions(std::int32_t four) {
    for (std::int32_t first = 0; first < lines_.count; first += batch()) {
      C sums[packets_at_once] = {};
      for (std::int32_t position = 0; position < lines_.length; position += block()) {
        Packet<S> packets[packets_at_once];
        load_packets(lines_, team_, first, position + team_.across * numbers, packets);
        stage(four, position);
        C products[packets_at_once][4] = {};
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n) {
          const Four<C> vector = vectors()[n * team_.width + team_.across];
          ORTHO_UNROLL
          for (int p = 0; p < packets_at_once; ++p) {
            const C entry = number_from<C>(packets[p].number(n));
            ORTHO_UNROLL
            for (int v = 0; v < 4; ++v) products[p][v] += entry * vector.of[v];
          }
        }
        ORTHO_UNROLL
        for (int p = 0; p < packets_at_once; ++p) sums[p] += sum_four_over_four(products[p]);
      }
      sum_over_team(team_, sums, parts(), [&](std::int32_t group, std::int32_t item, C sum) {
        products(four)[first + group + item / 4 * team_.groups].of[partner(item % 4)] = sum;
      });
    }
  }

  ORTHO_DEVICE void write() {
    const C scale = static_cast<const C*>(arguments_.factors)[matrix_.index];
    for (std::int32_t first = 0; first < lines_.count; first += batch()) {
      for (std::int32_t position = 0; position < lines_.length; position += team_.width * numbers) {
        C sums[packets_at_once][numbers] = {};
        for (std::int32_t four = 0; four < fours(); ++four) {
          stage(four, along_depth_ ? first / block() * block() : position);
          const Four<C>* const of_lines =
              (along_depth_ ? vectors() + first % block() : products(four) + first) + team_.group;
          const Four<C>* const of_positions = (along_depth_ ? products(four) : vectors()) + team_.across;
          ORTHO_UNROLL
          for (int n = 0; n < numbers; ++n) {
            const Four<C> at_position = of_positions[n * team_.width];
            ORTHO_UNROLL
            for (int p = 0; p < packets_at_once; ++p) {
              const Four<C> of_line = of_lines[p * team_.groups];
              ORTHO_UNROLL
              for (int v = 0; v < 4; ++v) sums[p][n] += of_line.of[v] * at_position.of[v];
            }
          }
        }
        write_packets(target_, team_, first, position + team_.across * numbers, scale, sums,
                      matrix_.gradient.accumulate);
      }
    }
    block_barrier();  // all have read the shared memory
  }

  const UpdateArguments& arguments_;
  const UpdateMatrix& matrix_;
  const bool along_depth_;
  const Team team_;
  const Lines<const S> lines_;
  const Lines<S> target_;
  std::int32_t staged_four_ = -1, staged_first_ = -1;
};

template <class C, class S>
ORTHO_KERNEL(pass_threads, (sizeof(C) == 4 ? update_blocks : pass_blocks), rank_update, UpdateArguments) {
  const std::int32_t item = block_index();
  const UpdateMatrix& matrix = arguments.matrices[find_matrix(arguments.matrices, arguments.count, item)];
  Update<C, S>(arguments, matrix, (item - matrix.first_item) * matrix.strip).run();
}

}  // namespace ortho::cuda
