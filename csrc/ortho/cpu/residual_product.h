// The gradient of soft orthogonality, 4 g R W, or of a cross Gram, g P B and g P^T A, tile by tile. The
// vectors of a block run along the dimension in which the gradient is contiguous, so that blocks are written
// as they are; the two operands swap roles for that.
#pragma once

#include "kernels.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// Writes finished blocks to the gradient, or adds them.
template <class T, class S>
struct GradientBlocks {
  const TileExtent& tile;
  S* gradient;
  std::int64_t row_stride, column_stride;
  bool accumulate;
  T scale;
  bool non_temporal;

  S* corner(const Block& block) const {
    return gradient + (tile.row + block.row) * row_stride + (tile.column + block.column) * column_stride;
  }
  std::int64_t rows(const Block& block) const { return smaller(block_rows, tile.rows - block.row); }

  // A block is a few cache lines in each of several rows, which no hardware predicts.
  void prepare(const Block& block) const {
    if (non_temporal) return;
    const S* target = corner(block);
    for (std::int64_t r = 0; r < rows(block); ++r, target += row_stride) {
      for (int byte = 0; byte < block_vectors * vector_bytes; byte += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(target) + byte, 1);
    }
  }

  void operator()(const Block& block, const T* sums) const {
    const std::int64_t columns = smaller(block_columns<T>, tile.columns - block.column);
    S* target = corner(block);
    for (std::int64_t r = 0; r < rows(block); ++r, target += row_stride, sums += block_columns<T>) {
      if constexpr (std::is_same_v<S, T>) {
        if (non_temporal) {
          write_line(reinterpret_cast<NonTemporal<S>*>(target), column_stride, sums, columns, scale, false);
          continue;
        }
      }
      write_line(target, column_stride, sums, columns, scale, accumulate);
    }
  }
};

// Nothing cancels in this product: long sums are as good as short ones.
constexpr std::int64_t gradient_summed_at_once = 1 << 20;

// The gradient as the tile sees it: its rows are those of the left operand.
template <class P, class S, class Left, class Right>
void product_tile(const Left& left, const Right& right, const TileExtent& tile, const GradientJob& job,
                  std::int64_t row_stride, std::int64_t column_stride, typename P::Number* memory) {
  using T = typename P::Number;
  S* gradient = static_cast<S*>(job.gradient.data);
  auto* left_panels = reinterpret_cast<typename P::Entry*>(memory);
  auto* right_panels = left_panels + packed<T>(tile.rows) * entries_of<P>(depth_chunk<P>);
  T* blocks = memory + panels_memory<T>(tile.rows, tile.columns, false);
  const bool non_temporal =
      job.non_temporal && column_stride == 1 && can_store_non_temporal<T>(gradient, row_stride);
  const GradientBlocks<T, S> write{
      tile,        gradient, row_stride, column_stride, job.gradient.accumulate, static_cast<T>(job.scale),
      non_temporal};
  tile_product<P>(left, right, tile, {left_panels, right_panels, blocks}, gradient_summed_at_once, write);
  if (non_temporal) fence_non_temporal();
}

template <class P>
void gradient_tile(const GradientJob& job, typename P::Number* memory) {
  using T = typename P::Number;
  with_storage<T>(job.matrix.storage, [&](auto storage) {
    using S = decltype(storage);
    const Matrix& matrix = job.matrix;
    const GradientTile& tile = job.tile;
    const std::int64_t order = matrix.shape.order;
    // Here the depth of the product is the order of the matrix.
    const StridedOperand<P, S> weight{static_cast<const S*>(matrix.data), matrix.depth_stride,
                                      matrix.order_stride};
    const std::int64_t along_order = job.gradient.order_stride, along_depth = job.gradient.depth_stride;
    const auto product_with = [&](const auto& factor) {
      if (along_depth == 1) {
        product_tile<P, S>(factor, weight, {tile.row, tile.rows, tile.column, tile.columns, 0, order}, job,
                           along_order, along_depth, memory);
      } else {
        product_tile<P, S>(weight, factor, {tile.column, tile.columns, tile.row, tile.rows, 0, order}, job,
                           along_depth, along_order, memory);
      }
    };
    const Factor& factor = job.factor;
    const auto* entries = static_cast<const T*>(factor.entries);
    if (factor.dense) {
      product_with(StridedOperand<P, T>{entries, factor.row_stride, factor.column_stride});
    } else {
      product_with(SymmetricOperand<P>{entries});
    }
    return 0;
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
