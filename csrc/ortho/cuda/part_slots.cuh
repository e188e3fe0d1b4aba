// Split-K: where the parts of a tile leave their sums until the last-arriving block adds all up.
//
// A slot holds one warp's sums after the other's, of a warp one 8 x 8 block after the other. Of a block it
// holds the first sum of every lane's pair, then the second: lanes write and read neighbors. Orders up to 32
// need the first warp alone, and only its blocks within the order: their slots are shorter (plan.h).
#pragma once

#include "gram_diagonal.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

// Numbers the blocks of a warp so that those of a smaller square come before all others:
//   0  2  6 12
//   1  3  7 13
//   4  5  8 14
//   9 10 11 15
// So the place of a block is a constant, whatever the order.
constexpr int block_number(int row, int column) {
  return row > column ? row * row + column : column * column + column + row;
}

// The slots of one tile, one for each part, from number `slot` of its matrix on.
template <class Sum>
struct PartSlots {
  std::int64_t numbers;  // of a slot
  double* first;         // the first part's
  std::int32_t across;   // blocks on each side of this warp's square; 0: it keeps nothing

  ORTHO_DEVICE PartSlots(double* of_matrix, std::int32_t order, std::int32_t slot)
      : numbers(slot_blocks(order) * slot_block_numbers),
        first(of_matrix + slot * numbers),
        across(order <= warp_side && thread_index() >= warp_size ? 0 : slot_blocks_across(order)) {}

  // Of this thread; its other sums follow at constant distances.
  ORTHO_DEVICE Sum* sums_of(std::int32_t part) const {
    const int warp = thread_index() / warp_size, lane = thread_index() % warp_size;
    return reinterpret_cast<Sum*>(first + part * numbers) + warp * warp_side * warp_side + lane;
  }

  // Float sums leave half of a slot free, for the squared lengths of a tile on the diagonal. That holds since
  // orders whose slots are shorter are summed in double.
  ORTHO_DEVICE TwoFloat* lengths_of(std::int32_t part) const {
    static_assert(small_order >= tile_side);
    return reinterpret_cast<TwoFloat*>(first + part * numbers + tile_side * tile_side / 2) +
           SquaredLengths::vector(0);
  }

  // Calls visit(distance, sum) for this thread's sums that a slot keeps, at that distance from sums_of(part).
  template <class Visit>
  ORTHO_DEVICE void for_kept(Blocks<Sum>& sums, const Visit& visit) const {
    for_indices([&](int i, int j, int e) {
      const int row = 2 * i + e / 2;
      if (!within(row, across) || !within(j, across)) return;
      visit(block_number(row, j) * slot_block_numbers + e % 2 * warp_size, sums[i][j][e]);
    });
  }
};

}  // namespace ortho::cuda
