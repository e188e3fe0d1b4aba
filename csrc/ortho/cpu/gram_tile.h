// A tile of a Gram, of one matrix or of two: what a residual and a cross Gram have in common.
#pragma once

#include "kernels.h"
#include "tile_product.h"

namespace ortho::ORTHO_LEVEL {
namespace {

// Near orthogonality the sums nearly cancel, with 1 or to 0: the rounding of long float sums would show.
constexpr std::int64_t gram_summed_at_once = 64;

TileExtent extent_of(const ResidualTile& tile) {
  return {tile.row, tile.rows, tile.column, tile.columns, tile.depth, tile.depth_end, on_diagonal(tile)};
}

// `scales` has a factor of both matrices for each depth; null: 1.
template <class T, class S, class Finish>
void gram_tile(const Matrix& left, const Matrix& right, const double* scales, const TileExtent& tile,
               T* memory, T* blocks, Finish& finish) {
  using P = PlainPanels<T>;
  const auto vectors = [&](const Matrix& matrix) {
    return ScaledOperand<P, StridedOperand<P, S>>{
        {static_cast<const S*>(matrix.data), matrix.order_stride, matrix.depth_stride}, scales};
  };
  T* right_panels = memory + packed<T>(tile.rows) * depth_chunk<P>;
  tile_product<P>(vectors(left), vectors(right), tile, {memory, right_panels, blocks}, gram_summed_at_once,
                  finish);
}

struct KeepBlocks {
  void prepare(const Block&) const {}
  template <class T>
  void operator()(const Block&, const T*) const {}
};

// The Gram blocks of a part of the depth only; `partial` has room for the blocks of the whole tile.
template <class T>
void gram_part(const Matrix& left, const Matrix& right, const double* scales, const ResidualTile& tile,
               T* memory, T* partial) {
  with_storage<T>(left.storage, [&](auto storage) {
    KeepBlocks keep;
    gram_tile<T, decltype(storage)>(left, right, scales, extent_of(tile), memory, partial, keep);
    return 0;
  });
}

// Adds up the parts of a tile, always in the same order, and finishes its blocks.
template <class T, class Finish>
void finish_parts(const TileExtent& tile, T* partials, std::int64_t parts, std::int64_t part_size,
                  Finish& finish) {
  for_blocks<T>(tile, [&](const Block& block) {
    T* sums = partials + block.index * block_size<T>;
    for (std::int64_t part = 1; part < parts; ++part) {
      for (int i = 0; i < block_size<T>; i += lanes<T>) {
        if (i % block_columns<T> >= block.vectors * lanes<T>) continue;
        store<T, T>(sums + i, load<T>(sums + i) + load<T>(sums + part * part_size + i));
      }
    }
    finish(block, sums);
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
