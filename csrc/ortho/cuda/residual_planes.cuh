// R of all matrices of a launch, spread from its packed lower triangle to dense 16-bit terms: blocks of them
// take turns in a row (launch_plan.h), which zeros fill up. One item is a tile, which is written twice, as it is
// and transposed. Float16 terms are those of a tile's entries times a power of two, so that they use float16's
// range whatever the size of R.
#pragma once

#include "arguments.h"
#include "launch_plan.h"
#include "reduce.cuh"
#include "terms.cuh"

namespace ortho::cuda {

struct SpreadMatrix : MatrixArguments {
  std::int64_t first_number;  // of its planes
};

struct SpreadArguments {
  const float* residuals;
  void* planes;
  float* scales;  // what the terms of each tile are to be multiplied by
  std::int32_t items;
  std::int32_t count;
  SpreadMatrix matrices[product_matrices];
};
static_assert(sizeof(SpreadArguments) <= argument_bytes);

constexpr int spread_warps = tile_threads / warp_size;
constexpr int spread_pitch = spread_side + 1;  // so that rows and columns meet all banks
constexpr std::size_t spread_shared_bytes = sizeof(std::uint32_t) * spread_side * spread_pitch;

// Pairs of neighbors are words.
template <int Terms>
struct PlaneRows {
  std::uint16_t* first;
  std::int64_t width;  // in numbers of one term

  ORTHO_DEVICE void write(std::int64_t row, std::int32_t column, const std::uint32_t (&pair)[Terms]) const {
    std::uint16_t* const block = first + (row * width + column / plane_block * plane_block) * Terms;
    ORTHO_UNROLL
    for (int t = 0; t < Terms; ++t)
      *reinterpret_cast<std::uint32_t*>(block + t * plane_block + column % plane_block) = pair[t];
  }
};

template <class Half, int Terms>
ORTHO_DEVICE void spread_tile(const SpreadArguments& arguments, const SpreadMatrix& matrix,
                              std::int32_t tile) {
  const int warp = thread_index() / warp_size, pair = 2 * (thread_index() % warp_size);
  const std::int32_t tile_row = tile_row_of(tile);
  const std::int32_t row = tile_row * spread_side;
  const std::int32_t column = (tile - static_cast<std::int32_t>(triangle(tile_row))) * spread_side;
  const float* const triangle_data = arguments.residuals + matrix.offset;
  constexpr int rows_each = spread_side / spread_warps;
  float entries[rows_each][2];
  float largest = 0;
  ORTHO_UNROLL
  for (int i = 0; i < rows_each; ++i) {
    ORTHO_UNROLL
    for (int e = 0; e < 2; ++e) {
      const std::int32_t r = row + warp + i * spread_warps, c = column + pair + e;
      const bool valid = within(r, matrix.order) && within(c, matrix.order);
      entries[i][e] = valid ? triangle_data[r < c ? triangle(c) + r : triangle(r) + c] : 0;
      largest = larger_magnitude(largest, entries[i][e]);
    }
  }
  float scale = 1;
  if constexpr (std::is_same_v<Half, float16>) {
    scale = scale_for(largest_of_block<tile_threads>(largest));
    if (thread_index() == 0) arguments.scales[matrix.first_item + tile] = 1 / scale;
  }
  const std::int64_t width = plane_width(matrix.order);
  const PlaneRows<Terms> planes{static_cast<std::uint16_t*>(arguments.planes) + matrix.first_number, width};
  auto* const words = reinterpret_cast<std::uint32_t*>(shared_memory());  // an entry's terms in each
  ORTHO_UNROLL
  for (int i = 0; i < rows_each; ++i) {
    const int r = warp + i * spread_warps;
    std::uint32_t terms[Terms];
    split<Half>(scale * entries[i][0], scale * entries[i][1], terms);
    if (within(row + r, matrix.order) && within(column + pair, width))
      planes.write(row + r, column + pair, terms);
    constexpr int last = Terms - 1;
    words[r * spread_pitch + pair] = (terms[0] & 0xffffu) | terms[last] << 16;
    words[r * spread_pitch + pair + 1] = terms[0] >> 16 | (terms[last] & 0xffff0000u);
  }
  block_barrier();
  if (row != column) {  // so all its columns are within the order
    ORTHO_UNROLL
    for (int i = 0; i < rows_each; ++i) {
      const int c = warp + i * spread_warps;
      const std::uint32_t one = words[pair * spread_pitch + c], other = words[(pair + 1) * spread_pitch + c];
      std::uint32_t terms[Terms];
      terms[Terms - 1] = one >> 16 | (other & 0xffff0000u);
      terms[0] = (one & 0xffffu) | other << 16;
      if (within(row + pair, width)) planes.write(column + c, row + pair, terms);
    }
  }
  block_barrier();  // the next tile writes the words anew
}

template <class Half, int Terms>
ORTHO_KERNEL(tile_threads, spread_blocks, spread_residuals, SpreadArguments) {
  for (std::int32_t i = block_index(); i < arguments.items; i += block_count()) {
    const SpreadMatrix& matrix = arguments.matrices[find_matrix(arguments.matrices, arguments.count, i)];
    spread_tile<Half, Terms>(arguments, matrix, i - matrix.first_item);
  }
}

}  // namespace ortho::cuda
