// The gradient 4 g R W of all matrices of a launch, R read as symmetric from its packed lower triangle. One
// item is a tile of a gradient; the depth of the product is the order of the matrix.
#pragma once

#include "arguments.h"
#include "reduce.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

struct ProductMatrix : MatrixArguments {
  GradientArguments gradient;
};

struct ProductArguments {
  const void* factors;  // of the gradients, one a matrix
  const void* residuals;
  std::int32_t items;
  std::int32_t count;
  ProductMatrix matrices[product_matrices];
};
static_assert(sizeof(ProductArguments) <= argument_bytes);

// Rows [first, first + 64) of a symmetric matrix of which the lower triangle is stored, row by row.
template <class Entry, int Depth, class C>
struct SymmetricOperand {
  using Panel = cuda::Panel<Entry, Depth, Major::depth>;
  const C* triangle_data;
  std::int32_t order;
  std::int32_t first;

  ORTHO_DEVICE void stage(int chunk, Entry* panel) const {
    const std::int32_t k = chunk * Depth;
    const bool below = k < first;  // neighbors in a row are neighbors in memory, else those in a column are
    ORTHO_UNROLL_BY(4)
    for (int p = thread_index(); p < tile_side * Depth; p += tile_threads) {
      const int vector = below ? p / Depth : p % tile_side, depth = below ? p % Depth : p / tile_side;
      const std::int32_t row = first + vector, column = k + depth;
      const bool valid = within(row, order) && within(column, order);
      const std::int64_t entry = row < column ? triangle(column) + row : triangle(row) + column;
      Entry* const target = panel + vector * Panel::Own::vector_step + depth;
      if constexpr (std::is_same_v<Entry, C>) {
        copy_async<sizeof(C)>(target, triangle_data + (valid ? entry : 0), valid);
      } else {
        *target = valid ? static_cast<Entry>(triangle_data[entry]) : Entry(0);
      }
    }
  }
};

// The vectors of W^T: those of the product run along the depth of the matrix, their own depth is its order.
template <class Entry, int Depth, class S, Major major>
struct TransposedOperand {
  using Panel = cuda::Panel<Entry, Depth, major>;
  Operand<S> operand;
  bool aligned;
  std::int32_t first;

  ORTHO_DEVICE void stage(int chunk, Entry* panel) const {
    cuda::stage<Entry, Depth, major>(operand, aligned, first, chunk * Depth, panel);
  }
};

template <class C, class S, class Products, Major major>
ORTHO_DEVICE void gradient_tile(const ProductArguments& arguments, const ProductMatrix& matrix,
                                std::int32_t row, std::int32_t column) {
  using Sum = typename Products::Sum;
  using Entry = std::conditional_t<std::is_same_v<Sum, double>, double, S>;
  const Operand<S> operand{static_cast<const S*>(matrix.data), matrix.depth_stride, matrix.order_stride,
                           matrix.depth, matrix.order};
  const C* const residual = static_cast<const C*>(arguments.residuals) + matrix.offset;
  const SymmetricOperand<typename Products::Entry, Products::depth, C> left{residual, matrix.order, row};
  const TransposedOperand<Entry, Products::depth, S, major> right{operand, is_aligned(operand, major),
                                                                  column};
  const bool beyond = row + warp_row() >= matrix.order || column + warp_column() >= matrix.depth;
  Blocks<Sum> sums;
  tile_product<Products>(left, right, (matrix.order + Products::depth - 1) / Products::depth, beyond, sums,
                         [](const auto&) {});
  const Sum scale = 4 * static_cast<Sum>(static_cast<const C*>(arguments.factors)[matrix.index]);
  const GradientArguments& target = matrix.gradient;
  S* const gradient = static_cast<S*>(target.data);
  for_sums<Sum>(sums, [&](int r, int c, Sum sum) {
    if (!within(row + r, matrix.order) || !within(column + c, matrix.depth)) return;
    write_gradient(gradient + (row + r) * target.order_stride + (column + c) * target.depth_stride,
                   scale * sum, target.accumulate);
  });
}

// Where the order is the larger side, R W cancels near orthogonality: no digit may be lost.
template <class C, class S, class Products, Major major>
ORTHO_DEVICE void gradient_tile_in(const ProductArguments& arguments, const ProductMatrix& matrix,
                                   std::int32_t row, std::int32_t column) {
  using Exact = SplitBfloat16<3, 3>;
  if constexpr (std::is_same_v<C, float> && std::is_same_v<S, float> && !std::is_same_v<Products, Exact>) {
    if (matrix.order > matrix.depth) return gradient_tile<C, S, Exact, major>(arguments, matrix, row, column);
  }
  gradient_tile<C, S, Products, major>(arguments, matrix, row, column);
}

// C: of values and residuals, S: of weights and gradients, Products: how the numbers are multiplied.
template <class C, class S, class Products>
ORTHO_KERNEL(tile_threads, tile_blocks, residual_product, ProductArguments) {
  for (std::int32_t i = block_index(); i < arguments.items; i += block_count()) {
    const ProductMatrix& matrix = arguments.matrices[find_matrix(arguments.matrices, arguments.count, i)];
    const std::int32_t row_tiles = (matrix.order + tile_side - 1) / tile_side;
    // Tiles one below the other are neighbors: they read the same part of W.
    const std::int32_t tile = i - matrix.first_item;
    const std::int32_t row = tile % row_tiles * tile_side, column = tile / row_tiles * tile_side;
    if (matrix.depth_stride == 1) {
      gradient_tile_in<C, S, Products, Major::vectors>(arguments, matrix, row, column);
    } else {
      gradient_tile_in<C, S, Products, Major::depth>(arguments, matrix, row, column);
    }
  }
}

}  // namespace ortho::cuda
