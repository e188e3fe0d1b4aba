// The gradient of SRIP, g * sum over pairs (p, x) of (p x^T + x p^T) W, of all matrices of a launch. One item
// is a strip of a matrix: the products of its columns with all vectors are kept in shared memory, so W is
// read once for every four vectors, and again from the caches.
#pragma once

#include "vector_pass.cuh"

namespace ortho::cuda {

struct UpdateMatrix : MatrixArguments {
  GradientArguments gradient;
  PermutationArguments permutation;
};

struct UpdateArguments {
  const void* factors;  // of the gradients, one a matrix
  const void* vectors;
  std::int32_t pairs;
  std::int32_t strip;
  std::int32_t items;
  std::int32_t count;
  UpdateMatrix matrices[update_matrices];
};
static_assert(sizeof(UpdateArguments) <= argument_bytes);

// In a list of pairs the partner of an even vector is the next one, of an odd one the one before.
ORTHO_DEVICE std::int32_t partner(std::int32_t vector) { return vector ^ 1; }

constexpr int vectors_at_once = 4;

template <class C>
struct PackedVectors {
  const C* data;
  const UpdateMatrix& matrix;
  std::int32_t count;

  ORTHO_DEVICE C at(std::int32_t vector, std::int32_t entry) const {
    return within(vector, count)
               ? data[std::int64_t{vector} * matrix.order + caller_index(matrix.permutation, entry)]
               : C(0);
  }
};

// products[v][c] = sum over rows of W[row][c] vector v[row], for vectors [v, v + 4).
template <class C, class S>
ORTHO_DEVICE void products_along_depth(const UpdateMatrix& matrix, const S* strip, std::int32_t columns,
                                       const PackedVectors<C>& vectors, std::int32_t v, std::int32_t pitch,
                                       C* products) {
  const int lane = thread_index() % warp_size, warp = thread_index() / warp_size;
  C sums[vectors_at_once][strip_columns] = {};
  for (std::int32_t row = warp; row < matrix.order; row += pass_warps) {
    C factors[vectors_at_once];
    ORTHO_UNROLL
    for (int q = 0; q < vectors_at_once; ++q) factors[q] = vectors.at(v + q, row);
    ORTHO_UNROLL
    for (int c = 0; c < strip_columns; ++c) {
      const std::int32_t column = lane + c * warp_size;
      const C entry = within(column, columns)
                          ? number_from<C>(strip[row * matrix.order_stride + column * matrix.depth_stride])
                          : C(0);
      ORTHO_UNROLL
      for (int q = 0; q < vectors_at_once; ++q) sums[q][c] += entry * factors[q];
    }
  }
  const StripMemory memory = strip_memory<double>();
  ORTHO_UNROLL
  for (int q = 0; q < vectors_at_once; ++q) {
    ORTHO_UNROLL
    for (int c = 0; c < strip_columns; ++c)
      memory.of_warp(warp)[lane + c * warp_size] = static_cast<double>(sums[q][c]);
    add_warps(memory, columns);
    if (within(thread_index(), columns) && within(v + q, vectors.count))
      products[(v + q) * pitch + thread_index()] = static_cast<C>(memory.sums()[thread_index()]);
  }
}

template <class C, class S>
ORTHO_DEVICE void products_along_order(const UpdateMatrix& matrix, const S* strip, std::int32_t columns,
                                       const PackedVectors<C>& vectors, std::int32_t v, std::int32_t pitch,
                                       C* products) {
  const int lane = thread_index() % warp_size, warp = thread_index() / warp_size;
  for (std::int32_t column = warp; column < columns; column += pass_warps) {
    C sums[vectors_at_once] = {};
    for (std::int32_t row = lane; row < matrix.order; row += warp_size) {
      const C entry = number_from<C>(strip[row * matrix.order_stride + column * matrix.depth_stride]);
      ORTHO_UNROLL
      for (int q = 0; q < vectors_at_once; ++q) sums[q] += entry * vectors.at(v + q, row);
    }
    ORTHO_UNROLL
    for (int q = 0; q < vectors_at_once; ++q) {
      const C sum = sum_over_warp(sums[q]);
      if (lane == 0 && within(v + q, vectors.count)) products[(v + q) * pitch + column] = sum;
    }
  }
}

template <class C, class S>
ORTHO_DEVICE void update_strip(const UpdateArguments& arguments, const UpdateMatrix& matrix,
                               std::int32_t begin) {
  const std::int32_t columns =
      matrix.depth - begin < arguments.strip ? matrix.depth - begin : arguments.strip;
  const std::int32_t count = 2 * arguments.pairs;
  const PackedVectors<C> vectors{static_cast<const C*>(arguments.vectors) + count * matrix.offset, matrix,
                                 count};
  const S* const strip = static_cast<const S*>(matrix.data) + begin * matrix.depth_stride;
  auto* const products = reinterpret_cast<C*>(shared_memory() + pass_shared_bytes);
  const bool along_depth = is_depth_major(matrix.order_stride, matrix.depth_stride);
  for (std::int32_t v = 0; v < count; v += vectors_at_once) {
    if (along_depth) {
      products_along_depth<C, S>(matrix, strip, columns, vectors, v, arguments.strip, products);
    } else {
      products_along_order<C, S>(matrix, strip, columns, vectors, v, arguments.strip, products);
    }
  }
  block_barrier();
  const C scale = static_cast<const C*>(arguments.factors)[matrix.index];
  const GradientArguments& target = matrix.gradient;
  S* const gradient = static_cast<S*>(target.data) + begin * target.depth_stride;
  // Neighboring threads write neighbors in memory.
  const std::int32_t inner = along_depth ? columns : matrix.order;
  for (std::int32_t outer = thread_index() / warp_size; outer < (along_depth ? matrix.order : columns);
       outer += pass_warps) {
    for (std::int32_t i = thread_index() % warp_size; i < inner; i += warp_size) {
      const std::int32_t row = along_depth ? outer : i, column = along_depth ? i : outer;
      C sum = 0;
      for (std::int32_t v = 0; v < count; ++v)
        sum += vectors.at(v, row) * products[partner(v) * arguments.strip + column];
      write_gradient(gradient + row * target.order_stride + column * target.depth_stride, scale * sum,
                     target.accumulate);
    }
  }
  block_barrier();  // the next strip writes the products anew
}

template <class C, class S>
ORTHO_KERNEL(pass_threads, pass_blocks, rank_update, UpdateArguments) {
  for (std::int32_t i = block_index(); i < arguments.items; i += block_count()) {
    const UpdateMatrix& matrix = arguments.matrices[find_matrix(arguments.matrices, arguments.count, i)];
    update_strip<C, S>(arguments, matrix, (i - matrix.first_item) * arguments.strip);
  }
}

}  // namespace ortho::cuda
