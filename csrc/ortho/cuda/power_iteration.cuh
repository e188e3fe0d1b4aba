// SRIP of all matrices of a launch. All applications of R are one kernel: a pass over W leaves partial
// products W_b (W_b^T x) of ranges of the depth, a grid barrier later they are added up to the next vector,
// and so on. Where a grid can't wait for itself, each phase is a launch of its own.
//
// An item of a pass is a strip of a matrix. Each block has an equal share of all strips, one after the other:
// those of one matrix are a range.
//
// With x_i = R x_(i-1) normalized at every step and s_i = |R x_(i-1)|, the value is s_m. The adjoints, each
// scaled by the length that its partner was divided by, are
//   p_m = x_m,   p_(m-1) = (R p_m - s_m x_(m-1)) / s_(m-1),   p_i = R p_(i+1) / s_i.
// Vectors are kept as they come out of R, x_i times s_i, and are divided where they are used.
//
// W W^T x - x cancels near orthogonality. Its sums and vectors are of type T with at least twice float's
// digits: double, or TwoFloat on GPUs where double is slow. What is done once a row is in double everywhere.
#pragma once

#include "permutation.cuh"
#include "vector_pass.cuh"

namespace ortho::cuda {

struct IterationMatrix : MatrixArguments {
  std::int64_t first_partial, first_vector;
  std::int32_t log_width, strip;
  std::int32_t first_block, ranges;  // its strips are these many blocks' from the first on
  std::int32_t first_row_block;
  PermutationArguments permutation;
};

struct IterationArguments {
  const void* start;
  void* values;
  void* vectors;   // null: keep nothing
  void* partials;  // of T, as the next
  void* work_vectors;
  double* squared_lengths;  // of the vectors 1 to `iterations`: one for each row part of the launch
  std::uint32_t* counter;   // of blocks that came to a grid barrier
  std::int32_t iterations, through, adjoints;
  std::int32_t share, longer_shares;  // strips of a block's share, and how many have one more
  std::int32_t row_blocks;
  std::int32_t first_phase, end_phase;
  std::int32_t count;
  IterationMatrix matrices[iteration_matrices];
};
static_assert(sizeof(IterationArguments) <= argument_bytes);

// Phases: the start; for each application a pass and a reduction; the end.
ORTHO_DEVICE std::int32_t steps_of(const IterationArguments& arguments) {
  return arguments.iterations + (arguments.adjoints ? arguments.iterations - 1 : 0);
}

template <class T>
ORTHO_DEVICE T* work_vector(const IterationArguments& arguments, const IterationMatrix& matrix,
                            std::int32_t slot) {
  return static_cast<T*>(arguments.work_vectors) + matrix.first_vector + std::int64_t{slot} * matrix.order;
}
// The number at that row of it, which another block may have written.
template <class T>
ORTHO_DEVICE double entry_of(const IterationArguments& arguments, const IterationMatrix& matrix,
                             std::int32_t slot, std::int32_t row) {
  return static_cast<double>(read_past_l1(work_vector<T>(arguments, matrix, slot) + row));
}

// Without adjoints two vectors are enough, in turn.
ORTHO_DEVICE std::int32_t slot_of(const IterationArguments& arguments, std::int32_t vector) {
  return arguments.adjoints ? vector : vector % 2;
}
ORTHO_DEVICE std::int32_t input_slot(const IterationArguments& arguments, std::int32_t step) {
  if (step <= arguments.iterations) return slot_of(arguments, step);
  return 3 * arguments.iterations - step;  // p_i with i = 2 iterations - step, behind the x
}

// Where the squared lengths of a vector's row parts begin.
ORTHO_DEVICE double* squared_lengths_of(const IterationArguments& arguments, const IterationMatrix& matrix,
                                        std::int32_t vector) {
  return arguments.squared_lengths +
         (std::int64_t{vector} * arguments.row_blocks + matrix.first_row_block) * row_parts;
}

// |R x_(vector - 1)|; the start was normalized. Whole warps call this.
ORTHO_DEVICE double length_of(const IterationArguments& arguments, const IterationMatrix& matrix,
                              std::int32_t vector) {
  if (vector == 0) return 1;
  const double* const squares = squared_lengths_of(arguments, matrix, vector);
  const std::int32_t parts = (matrix.order + warp_size - 1) / warp_size;
  double sum = 0;
  for (std::int32_t p = thread_index() % warp_size; within(p, parts); p += warp_size)
    sum += read_past_l1(squares + p);
  return square_root(sum_over_warp(sum));
}

// A NaN stays one: only an exact zero is left alone.
ORTHO_DEVICE double divide(double numerator, double length) { return length == 0 ? 0 : numerator / length; }

// ---- one row of one row block: a thread's, of the first two warps
// ------------------------------------------

template <class C, class T>
ORTHO_DEVICE void start_rows(const IterationArguments& arguments, const IterationMatrix& matrix,
                             std::int32_t row) {
  const C* const start = static_cast<const C*>(arguments.start) + matrix.offset;
  double squares[1] = {0};
  for (std::int32_t i = thread_index(); i < matrix.order; i += pass_threads) {
    const auto entry = static_cast<double>(start[i]);
    squares[0] += entry * entry;
  }
  sum_over_block<pass_threads>(squares);
  if (thread_index() >= row_block_rows || !within(row, matrix.order)) return;
  const auto entry = static_cast<double>(start[caller_index(matrix.permutation, row)]);
  work_vector<T>(arguments, matrix, 0)[row] = T(divide(entry, square_root(squares[0])));
}

// W W^T x, for the threads that have a row: the partial products of all ranges, of which four threads add up
// a quarter each.
template <class T>
ORTHO_DEVICE double sum_of_ranges(const IterationArguments& arguments, const IterationMatrix& matrix,
                                  std::int32_t row) {
  constexpr std::int32_t quarters = pass_threads / row_block_rows;
  auto* const sums = reinterpret_cast<double*>(shared_memory());
  const T* const partials = static_cast<const T*>(arguments.partials) + matrix.first_partial + row;
  double sum = 0;
  if (within(row, matrix.order)) {
    for (std::int32_t range = thread_index() / row_block_rows; range < matrix.ranges; range += quarters)
      sum += static_cast<double>(read_past_l1(partials + std::int64_t{range} * matrix.order));
  }
  sums[thread_index()] = sum;
  block_barrier();
  sum = 0;
  for (std::int32_t quarter = 0; quarter < quarters; ++quarter)
    sum += sums[thread_index() % row_block_rows + quarter * row_block_rows];
  block_barrier();  // the memory may be used again
  return sum;
}

// Goes one application on.
template <class T>
ORTHO_DEVICE void reduce_rows(const IterationArguments& arguments, const IterationMatrix& matrix,
                              std::int32_t row, std::int32_t step) {
  double applied = sum_of_ranges<T>(arguments, matrix, row);
  if (thread_index() >= row_block_rows) return;
  const std::int32_t last = arguments.iterations;
  const bool is_row = within(row, matrix.order);
  if (is_row) applied -= entry_of<T>(arguments, matrix, input_slot(arguments, step), row);
  if (step < last) {
    const double length = length_of(arguments, matrix, step);
    const double next = is_row ? divide(applied, length) : 0;
    if (is_row) work_vector<T>(arguments, matrix, slot_of(arguments, step + 1))[row] = T(next);
    const double squares = sum_over_warp(next * next);
    if (thread_index() % warp_size == 0)
      squared_lengths_of(arguments, matrix, step + 1)[row / warp_size] = squares;
    return;
  }
  const std::int32_t i = 2 * last - step - 1;  // of the adjoint that comes out
  const double length = length_of(arguments, matrix, i);
  if (step == last) {
    const double sigma = length_of(arguments, matrix, last);
    const double before_length = length_of(arguments, matrix, last - 1);
    if (is_row) {
      const double before = entry_of<T>(arguments, matrix, slot_of(arguments, last - 1), row);
      applied = divide(applied, sigma) - sigma * divide(before, before_length);
    }
  }
  if (is_row) work_vector<T>(arguments, matrix, last + i)[row] = T(divide(applied, length));
}

template <class C, class T>
ORTHO_DEVICE void finish_rows(const IterationArguments& arguments, const IterationMatrix& matrix,
                              std::int32_t row) {
  if (thread_index() >= row_block_rows) return;
  const std::int32_t last = arguments.iterations;
  const double value = length_of(arguments, matrix, last);
  if (row == 0) static_cast<C*>(arguments.values)[matrix.index] = static_cast<C>(value);
  if (!arguments.vectors) return;
  const std::int32_t pairs = arguments.through ? last : 1;
  C* const vectors = static_cast<C*>(arguments.vectors) + 2 * std::int64_t{pairs} * matrix.offset;
  const std::int64_t at = caller_index(matrix.permutation, row);
  for (std::int32_t pair = 0; pair < pairs; ++pair) {
    const std::int32_t i = last - pair;
    const double before_length = length_of(arguments, matrix, i - 1);
    if (!within(row, matrix.order)) continue;
    double left = 0, right = 0;
    if (value != 0) {  // a value of zero has no direction: its gradient is zero
      left = entry_of<T>(arguments, matrix, i == last ? slot_of(arguments, i) : last + i, row);
      if (i == last) left = divide(left, value);
      right = divide(entry_of<T>(arguments, matrix, slot_of(arguments, i - 1), row), before_length);
    }
    vectors[2 * std::int64_t{pair} * matrix.order + at] = static_cast<C>(left);
    vectors[(2 * std::int64_t{pair} + 1) * matrix.order + at] = static_cast<C>(right);
  }
}

// ---- phases ----------------------------------------------------------------------------------------------

constexpr int matrix_slot = 0, phase_slot = 1;  // of what is kept during a pass

// The first strip of a block's share: all are equal, but for one more of each of the first few blocks.
ORTHO_DEVICE std::int32_t first_of_share(const IterationArguments& arguments, std::int32_t block) {
  return block * arguments.share + (block < arguments.longer_shares ? block : arguments.longer_shares);
}

template <class T, class S>
ORTHO_DEVICE void pass_over_share(const IterationArguments& arguments) {
  using Memory = PassMemory<T, S>;
  const auto partial = [&] {
    const IterationMatrix& matrix = arguments.matrices[Memory::kept(matrix_slot)];
    const std::int64_t range = block_index() - matrix.first_block;
    return static_cast<T*>(arguments.partials) + matrix.first_partial + range * matrix.order;
  };
  std::int32_t m = find_matrix(arguments.matrices, arguments.count, first_of_share(arguments, block_index()));
  for (; m < arguments.count; m = Memory::kept(matrix_slot) + 1) {
    Memory::kept(matrix_slot) = m;
    const IterationMatrix& matrix = arguments.matrices[m];
    // Of the matrix's own strips.
    const std::int32_t share_begin = first_of_share(arguments, block_index()) - matrix.first_item;
    const std::int32_t share_end = first_of_share(arguments, block_index() + 1) - matrix.first_item;
    if (share_end <= 0) break;
    const std::int32_t strips = matrix.ranges == 0 ? 0 : (matrix.depth + matrix.strip - 1) / matrix.strip;
    const std::int32_t begin = share_begin > 0 ? share_begin : 0,
                       end = share_end < strips ? share_end : strips;
    if (begin >= end) continue;
    const std::int32_t step = Memory::kept(phase_slot) / 2;
    gram_times_vector<T, S>(matrix, begin, end,
                            work_vector<T>(arguments, matrix, input_slot(arguments, step)), partial);
  }
}

template <class C, class T>
ORTHO_DEVICE void work_on_rows(const IterationArguments& arguments, const IterationMatrix& matrix,
                               std::int32_t row_block, std::int32_t phase) {
  const std::int32_t row = row_block * row_block_rows + thread_index() % row_block_rows;
  if (phase == 0) {
    start_rows<C, T>(arguments, matrix, row);
  } else if (phase == 2 * steps_of(arguments) + 1) {
    finish_rows<C, T>(arguments, matrix, row);
  } else {
    reduce_rows<T>(arguments, matrix, row, phase / 2 - 1);
  }
}

template <class C, class S, class T>
ORTHO_DEVICE void run_phase(const IterationArguments& arguments, std::int32_t phase) {
  const bool is_pass = phase % 2 == 1 && phase < 2 * steps_of(arguments);
  if (is_pass) return pass_over_share<T, S>(arguments);
  for (std::int32_t i = block_index(); i < arguments.row_blocks; i += block_count()) {
    const IterationMatrix& matrix =
        arguments
            .matrices[find_matrix(arguments.matrices, arguments.count, i, &IterationMatrix::first_row_block)];
    work_on_rows<C, T>(arguments, matrix, i - matrix.first_row_block, phase);
  }
}

// Waits until all blocks have come here for the `times`-th time. All must be running: a cooperative launch.
// The fences of thread 0 stand for the whole block, as in the grid barrier of CUDA's cooperative groups.
ORTHO_DEVICE void grid_barrier(std::uint32_t* counter, std::int32_t times) {
  block_barrier();
  if (thread_index() == 0) {
    memory_fence();  // whoever reads the counter sees what the block wrote before its barrier
    count_up(counter);
    while (read_counter(counter) <
           static_cast<std::uint32_t>(times) * static_cast<std::uint32_t>(block_count()))
      let_others_run();
    memory_fence();  // and this block sees what the others wrote
  }
  block_barrier();
}

// C: of values and of the vectors that are kept. S: of the weights. T: of the arithmetic.
template <class C, class S, class T>
ORTHO_KERNEL(pass_threads, pass_blocks, power_iteration, IterationArguments) {
  std::int32_t& kept_phase = PassMemory<T, S>::kept(phase_slot);
  for (kept_phase = arguments.first_phase; kept_phase < arguments.end_phase; ++kept_phase) {
    const std::int32_t times = kept_phase - arguments.first_phase;
    if (times > 0) grid_barrier(arguments.counter, times);
    run_phase<C, S, T>(arguments, kept_phase);
  }
}

}  // namespace ortho::cuda
