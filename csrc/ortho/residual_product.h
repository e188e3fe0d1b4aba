// The gradient of soft orthogonality, 4 g R W, tile by tile. The vectors of a block run along the dimension
// in which the gradient is contiguous, so that blocks are written as they are; the two operands swap roles
// for that.
#pragma once

#include "cpu_kernels.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class T, class S, class Left, class Right>
void product_tile(const Left& left, const Right& right, const TileExtent& tile, S* gradient,
                  std::int64_t row_stride, std::int64_t column_stride, T scale, T* memory) {
  T* right_panels = memory + round_up(tile.rows, panel_width<T>) * depth_chunk<T>;
  T* blocks = memory + panels_size<T>(tile.rows, tile.columns);
  tile_product<T>(left, right, tile, TileMemory<T>{memory, right_panels, blocks},
                  [&](std::int64_t block_row, std::int64_t block_column, const T* block) {
                    const std::int64_t rows = smaller(block_rows, tile.rows - block_row);
                    const std::int64_t columns = smaller(panel_width<T>, tile.columns - block_column);
                    S* corner = gradient + (tile.row + block_row) * row_stride +
                                (tile.column + block_column) * column_stride;
                    for (std::int64_t r = 0; r < rows; ++r) {
                      write_line<S, T>(corner + r * row_stride, column_stride, block + r * panel_width<T>,
                                       columns, scale);
                    }
                  });
}

template <class T>
void gradient_tile(const GradientJob& job, T* memory) {
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const Matrix& matrix = job.matrix;
    const GradientTile& tile = job.tile;
    const std::int64_t order = matrix.shape.order;
    const SymmetricOperand<T> residual{static_cast<const T*>(job.residual)};
    // Here the depth of the product is the order of the matrix.
    const StridedOperand<T, S> weight{static_cast<const S*>(matrix.data), matrix.depth_stride,
                                      matrix.order_stride};
    S* gradient = static_cast<S*>(job.gradient.data);
    const T scale = static_cast<T>(job.scale);
    if (job.gradient.depth_stride == 1) {
      product_tile<T, S>(residual, weight, {tile.row, tile.rows, tile.column, tile.columns, 0, order},
                         gradient, job.gradient.order_stride, job.gradient.depth_stride, scale, memory);
    } else {
      product_tile<T, S>(weight, residual, {tile.column, tile.columns, tile.row, tile.rows, 0, order},
                         gradient, job.gradient.depth_stride, job.gradient.order_stride, scale, memory);
    }
    return 0;
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
