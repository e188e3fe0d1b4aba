// R of all matrices of a launch, spread from its packed lower triangle to dense 16-bit terms, which zeros
// fill up. One item is a tile, which is written twice, as it is and transposed. Float16 terms are those of a
// tile's entries times a power of two, so that they use float16's range whatever the size of R.
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

// Where the units of R's terms are, of eight numbers that are neighbors along the depth: row by row or, where
// warpgroups multiply, in blocks that are copied as they are, for `plane_rows` rows in dense arrangement.
template <int Terms>
struct PlanePlaces {
  static constexpr bool in_blocks = half_arrangement != Arrangement::padded;
  static constexpr std::int32_t unit = 8, units = plane_block / unit;
  std::int64_t blocks;

  ORTHO_DEVICE explicit PlanePlaces(std::int32_t order) : blocks(plane_blocks(order)) {}
  ORTHO_DEVICE std::int64_t number(std::int32_t row, std::int32_t k, int term) const {
    const std::int32_t of_term = term * units + k % plane_block / unit;
    if (in_blocks) {
      const std::int64_t block = row / plane_rows * blocks + k / plane_block;
      return ((block * Terms * units + of_term) * plane_rows + row % plane_rows) * unit;
    }
    return row * row_numbers() + (k / plane_block * Terms * units + of_term) * unit;
  }
  // Of all terms of a row, where rows are one behind the other.
  ORTHO_DEVICE std::int64_t row_numbers() const { return blocks * Terms * plane_block; }
};

// Writes a tile's units, of which entry (r, k) is words[r * row_step + k * depth_step].
template <int Terms>
ORTHO_DEVICE void write_units(std::uint16_t* planes, std::int32_t order, std::int32_t row,
                              std::int32_t column, const std::uint32_t* words, int row_step, int depth_step) {
  using Places = PlanePlaces<Terms>;
  const Places places(order);
  constexpr int unit = Places::unit, across = spread_side / unit;
  ORTHO_UNROLL
  for (int i = thread_index(); i < spread_side * across; i += tile_threads) {
    // Threads that are neighbors write to neighbors in memory.
    const int r = Places::in_blocks ? i % spread_side : i / across;
    const int k = (Places::in_blocks ? i / spread_side : i % across) * unit;
    if (!within(row + r, order) || !within(column + k, places.blocks * plane_block)) continue;
    Words<unit / 2> terms[Terms];
    ORTHO_UNROLL
    for (int w = 0; w < unit / 2; ++w) {
      const std::uint32_t* const two = words + r * row_step + (k + 2 * w) * depth_step;
      const std::uint32_t one = two[0], other = two[depth_step];
      terms[Terms - 1].words[w] = one >> 16 | (other & 0xffff0000u);
      terms[0].words[w] = (one & 0xffffu) | other << 16;
    }
    ORTHO_UNROLL
    for (int t = 0; t < Terms; ++t)
      *reinterpret_cast<Words<unit / 2>*>(planes + places.number(row + r, column + k, t)) = terms[t];
  }
}

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
  auto* const words = reinterpret_cast<std::uint32_t*>(shared_memory());  // an entry's terms in each
  ORTHO_UNROLL
  for (int i = 0; i < rows_each; ++i) {
    std::uint32_t terms[Terms];
    split<Half>(scale * entries[i][0], scale * entries[i][1], terms);
    constexpr int last = Terms - 1;
    std::uint32_t* const two = words + (warp + i * spread_warps) * spread_pitch + pair;
    two[0] = (terms[0] & 0xffffu) | terms[last] << 16;
    two[1] = terms[0] >> 16 | (terms[last] & 0xffff0000u);
  }
  block_barrier();
  auto* const planes = static_cast<std::uint16_t*>(arguments.planes) + matrix.first_number;
  write_units<Terms>(planes, matrix.order, row, column, words, spread_pitch, 1);
  if (row != column) write_units<Terms>(planes, matrix.order, column, row, words, 1, spread_pitch);
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
