// Split-K: where the parts of a tile leave their sums until the last-arriving block adds all up.
//
// Lanes write and read neighbors: of an 8 x 8 block of entries a slot holds the first sum of every lane's
// pair, then the second. In double it holds only the blocks within the order. Float sums are those of a whole
// tile, one warp's after the other's, with the squared lengths behind them (launch_plan.h).
#pragma once

#include "gram_diagonal.cuh"
#include "tile_places.cuh"

namespace ortho::cuda {

// Numbers the blocks of a tile so that those of a smaller square come before all others:
//   0  2  6 12
//   1  3  7 13
//   4  5  8 14
//   9 10 11 15
// So the place of a block does not depend on the order.
ORTHO_DEVICE int block_number(int row, int column) {
  return row > column ? row * row + column : column * column + column + row;
}

// The slots of one tile, one for each part, from number `slot` of its matrix on.
template <class Sum, class Places>
struct PartSlots {
  static constexpr bool in_double = std::is_same_v<Sum, double>;
  static constexpr int side = tile_side(in_double);
  std::int64_t numbers;  // of a slot, in doubles
  double* first;         // the first part's
  std::int32_t across;   // blocks on a side that are kept

  ORTHO_DEVICE PartSlots(double* of_matrix, std::int32_t order, std::int32_t slot)
      : numbers(slot_blocks(order, in_double) * slot_block_numbers),
        first(of_matrix + slot * numbers),
        across(slot_blocks_across(order, in_double)) {}

  // Of this thread.
  ORTHO_DEVICE Sum* sums_of(std::int32_t part) const {
    const int thread = computed_here(thread_index());
    const int of_warp = in_double ? 0 : thread / warp_size * (side / 2) * (side / 4);
    return reinterpret_cast<Sum*>(first + part * numbers) + of_warp + thread % warp_size;
  }

  ORTHO_DEVICE TwoFloat* lengths_of(std::int32_t part) const {
    static_assert(!in_double);
    return reinterpret_cast<TwoFloat*>(first + part * numbers + side * side / 2) +
           SquaredLengths<Places>::vector(0);
  }

  // Calls visit(distance, sum) for this thread's sums that a slot keeps, at that distance from sums_of(part).
  template <class Visit>
  ORTHO_DEVICE void for_kept(Blocks<Sum, side>& sums, const Visit& visit) const {
    const int thread = computed_here(thread_index());
    for_indices<side>([&](int i, int j, int e) {
      if constexpr (in_double) {
        const int row = (Places::row(thread) + Places::block_row(i)) / slot_block + e / 2;
        const int column = (Places::column(thread) + Places::block_column(i, j)) / slot_block;
        if (!within(row, across) || !within(column, across)) return;
        visit(block_number(row, column) * slot_block_numbers + e % 2 * warp_size, sums[i][j][e]);
      } else {
        visit(((i * (side / 32) + j) * 4 + e) * warp_size, sums[i][j][e]);
      }
    });
  }
};

}  // namespace ortho::cuda
