// R = Gram - I of all matrices of a launch: its lower triangle, packed and weighted, and the weighted sums of
// squares. One item is a tile of a triangle for a part of the depth.
#pragma once

#include "../options.h"
#include "arguments.h"
#include "gram_diagonal.cuh"
#include "part_slots.cuh"
#include "reduce.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

// Two float16 terms lack a float32 number's last bit. Near orthogonality that shows where the Gram's sums are
// so short that it does not average out.
constexpr std::int32_t shallow_depth = 256;

struct ResidualMatrix : MatrixArguments {
  std::int32_t first_slot_block;
  std::int32_t part_depth;
};

struct ResidualArguments {
  void* values;
  void* residuals;          // null: keep nothing
  double* partials;         // the slots of all parts
  double* squares;          // for each item: of the diagonal, of the entries below it
  std::uint32_t* counters;  // of parts that are there, one an item; then of tiles, one a matrix
  double diagonal, off_diagonal;
  std::int32_t items;
  std::int32_t count;
  ResidualMatrix matrices[residual_matrices];
};
static_assert(sizeof(ResidualArguments) <= argument_bytes);

// Entries of R in a tile, and where its part of the depth lies.
struct ResidualItem {
  std::int32_t matrix;
  std::int32_t tile, part, parts;
  std::int32_t row, column;
  std::int32_t begin, end;
  bool in_double;  // the rounding errors of float sums don't average out over the entries of a small order
};

template <class C>
ORTHO_DEVICE ResidualItem residual_item(const ResidualArguments& arguments, std::int32_t item) {
  ResidualItem result;
  result.matrix = find_matrix(arguments.matrices, arguments.count, item);
  const ResidualMatrix& matrix = arguments.matrices[result.matrix];
  result.in_double = std::is_same_v<C, double> || matrix.order <= small_order;
  const std::int32_t length = matrix.part_depth;
  result.parts = matrix.depth <= length ? 1 : (matrix.depth + length - 1) / length;
  result.tile = (item - matrix.first_item) / result.parts;
  result.part = (item - matrix.first_item) % result.parts;
  const std::int32_t row = tile_row_of(result.tile);
  const std::int32_t side = tile_side(result.in_double);
  result.row = row * side;
  result.column = (result.tile - static_cast<std::int32_t>(triangle(row))) * side;
  result.begin = result.part * length;
  result.end = matrix.depth - result.begin < length ? matrix.depth : result.begin + length;
  return result;
}

// Float sums lose too many digits of the diagonal. In tiles on it, two warps have only entries above it, which
// are not needed: those warps sum the squares of the vectors instead.
template <class Sum>
constexpr bool diagonal_apart = std::is_same_v<Sum, float>;
template <int Side>
ORTHO_DEVICE bool above_diagonal(const ResidualItem& item) {
  return item.row == item.column && warp_row<Side>() + Side / 2 <= warp_column<Side>();
}

// Split-K: returns whether this block is the last-arriving one of `all`. It then sees what the others wrote.
ORTHO_DEVICE bool arrives_last(std::uint32_t* counter, std::int32_t all) {
  auto* last = reinterpret_cast<std::int32_t*>(shared_memory());
  block_barrier();
  // Fences are cumulative: thread 0's release what the whole block wrote, and acquire for the whole block.
  if (thread_index() == 0) {
    memory_fence();
    *last = count_up(counter) + 1 == static_cast<std::uint32_t>(all);
    memory_fence();
  }
  block_barrier();
  const bool result = *last != 0;
  block_barrier();  // the memory may be used again
  return result;
}

// Makes R of the Gram. Where the diagonal was summed apart, it is taken from there.
template <class Sum, int Side>
ORTHO_DEVICE void subtract_identity(const ResidualItem& item, const SquaredLengths& lengths,
                                    Blocks<Sum, Side>& sums) {
  if (item.row != item.column) return;
  if constexpr (diagonal_apart<Sum>) {
    auto* const diagonal = reinterpret_cast<Sum*>(shared_memory());
    if (above_diagonal<Side>(item)) {
      ORTHO_UNROLL
      for (int i = 0; i < lengths.of_lane; ++i)
        diagonal[lengths.vector(i)] = static_cast<Sum>(static_cast<double>(lengths.sums[i]) - 1);
    }
    block_barrier();
    for_sums(sums, [&](int r, int c, Sum& sum) {
      if (r == c) sum = diagonal[r];
    });
    block_barrier();  // the memory may be used again
  } else {
    for_sums(sums, [](int r, int c, Sum& sum) {
      if (r == c) sum -= 1;
    });
  }
}

// Keeps the weighted entries of R and sums their squares over the tile. The last-arriving block of a matrix
// sums over all its tiles, in order.
template <class C, class Sum, int Side>
ORTHO_DEVICE void finish_tile(const ResidualArguments& arguments, const ResidualItem& item,
                              Blocks<Sum, Side>& sums) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  C* const kept = arguments.residuals ? static_cast<C*>(arguments.residuals) + matrix.offset : nullptr;
  double squares[2] = {0, 0};
  for_pairs(sums, [&](int r, int c, Sum first, Sum second) {
    const std::int32_t row = item.row + r, column = item.column + c;
    if (!within(row, matrix.order)) return;
    const auto finish = [&](std::int32_t own, Sum entry) {
      if (!within(own, std::int64_t{row} + 1)) return Sum(0);
      const Sum square = entry * entry;
      if (kept) {
        const auto weight = static_cast<Sum>(own == row ? arguments.diagonal : arguments.off_diagonal);
        kept[triangle(row) + own] = static_cast<C>(entry * weight);
      }
      if (own != row) return square;
      squares[0] += square;
      return Sum(0);
    };
    squares[1] += finish(column, first) + finish(column + 1, second);
  });
  sum_over_block<tile_threads>(squares);
  double* const own = arguments.squares + 2 * std::int64_t{matrix.first_item};
  if (thread_index() == 0) {
    own[2 * item.tile] = squares[0];
    own[2 * item.tile + 1] = squares[1];
  }
  const std::int32_t side = matrix.order < 1 ? 1 : (matrix.order + Side - 1) / Side;
  const auto tiles = static_cast<std::int32_t>(triangle(side));
  if (!arrives_last(arguments.counters + arguments.items + item.matrix, tiles)) return;
  double all[2] = {0, 0};
  for (std::int32_t tile = thread_index(); tile < tiles; tile += tile_threads) {
    all[0] += read_past_l1(own + 2 * tile);
    all[1] += read_past_l1(own + 2 * tile + 1);
  }
  sum_over_block<tile_threads>(all);
  if (thread_index() == 0) {
    static_cast<C*>(arguments.values)[matrix.index] =
        static_cast<C>(arguments.diagonal * all[0] + 2 * arguments.off_diagonal * all[1]);
  }
}

// Split-K: the last-arriving block of a tile adds all parts up, always in the same order. Returns whether
// this block did: only then are the sums and the lengths those of the whole depth.
template <class Sum, int Side>
ORTHO_DEVICE bool add_parts(const ResidualArguments& arguments, const ResidualItem& item,
                            std::int32_t item_index, SquaredLengths& lengths, Blocks<Sum, Side>& sums) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  const std::int32_t first_item = item_index - item.part;  // of the tile
  const PartSlots<Sum> slots(arguments.partials + std::int64_t{matrix.first_slot_block} * slot_block_numbers,
                             matrix.order, first_item - matrix.first_item);
  const bool has_lengths = diagonal_apart<Sum> && above_diagonal<Side>(item);
  if constexpr (diagonal_apart<Sum>) {
    if (has_lengths) {
      ORTHO_UNROLL
      for (int i = 0; i < lengths.of_lane; ++i) slots.lengths_of(item.part)[i * warp_size] = lengths.sums[i];
    }
  }
  Sum* const own = slots.sums_of(item.part);
  slots.for_kept(sums, [&](int distance, Sum sum) { own[distance] = sum; });
  if (!arrives_last(arguments.counters + first_item, item.parts)) return false;
  lengths = {};
  clear(sums);
  for (std::int32_t part = 0; part < item.parts; ++part) {
    const Sum* const other = slots.sums_of(part);
    slots.for_kept(sums, [&](int distance, Sum& sum) { sum += read_past_l1(other + distance); });
    if constexpr (diagonal_apart<Sum>) {
      if (has_lengths) {
        ORTHO_UNROLL
        for (int i = 0; i < lengths.of_lane; ++i)
          lengths.sums[i] += read_past_l1(slots.lengths_of(part) + i * warp_size);
      }
    }
  }
  return true;
}

// The sums of a tile for the item's part of the depth. Returns whether they are right: float16 terms hold
// neither huge weights nor tiny ones.
template <class Products, template <Major> class OperandIn, Major major, class S>
ORTHO_DEVICE bool gram_tile(const ResidualMatrix& matrix, const ResidualItem& item, SquaredLengths& lengths,
                            Blocks<typename Products::Sum, Products::side>& sums) {
  using Own = OperandIn<major>;
  using Sum = typename Products::Sum;
  constexpr int side = Products::side;
  const Operand<S> operand{static_cast<const S*>(matrix.data), matrix.order_stride, matrix.depth_stride,
                           matrix.order, item.end};
  Own left(operand, item.row, item.begin), right(operand, item.column, item.begin);
  const bool above = above_diagonal<side>(item);
  const bool beyond =
      item.row + warp_row<side>() >= matrix.order || item.column + warp_column<side>() >= matrix.order;
  lengths = {};
  tile_product<Products>(left, right, (item.end - item.begin + Products::depth - 1) / Products::depth,
                         item.row == item.column, above || beyond, sums, [&](const auto& panel) {
                           if constexpr (diagonal_apart<Sum>) {
                             if (above) lengths.template add_chunk<Products::depth>(panel);
                           }
                         });
  lengths.multiply(1 / (Own::scale * Own::scale));
  if constexpr (Own::scale == 1) {
    return true;
  } else {
    return hold_all_digits(left, item.row == item.column ? left : right, sums);
  }
}

// Operands by the layout of the matrix.
template <class S>
struct Gram {
  template <Major major>
  using AsStored = StoredOperand<S, S, wide_tile, 32, major>;
  template <Major major>
  using InHalves = SplitOperand<S, float16, 2, 32, major>;
  template <Major major>
  using Exactly = SplitOperand<S, bfloat16, 3, 16, major>;
  template <Major major>
  using InDouble = StoredOperand<double, S, narrow_tile, Fp64::depth, major>;
};

// Makes R of the sums and works on it, if they are those of the whole depth.
template <class C, class Sum, int Side>
ORTHO_DEVICE void complete_tile(const ResidualArguments& arguments, const ResidualItem& item,
                                std::int32_t item_index, SquaredLengths& lengths, Blocks<Sum, Side>& sums) {
  if (item.parts > 1 && !add_parts<Sum, Side>(arguments, item, item_index, lengths, sums)) return;
  subtract_identity<Sum, Side>(item, lengths, sums);
  finish_tile<C, Sum, Side>(arguments, item, sums);
}

template <class C, class S, Major major>
ORTHO_DEVICE void residual_tile(const ResidualArguments& arguments, const ResidualItem& item,
                                std::int32_t item_index) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  SquaredLengths lengths;
  if (item.in_double) {
    Blocks<double, narrow_tile> sums;
    gram_tile<Fp64, Gram<S>::template InDouble, major, S>(matrix, item, lengths, sums);
    return complete_tile<C, double, narrow_tile>(arguments, item, item_index, lengths, sums);
  }
  if constexpr (std::is_same_v<C, float>) {
    Blocks<float, wide_tile> sums;
    if constexpr (std::is_same_v<S, float>) {
      using InHalves = TermProducts<float16, 2, 2, 32>;
      if (matrix.depth <= shallow_depth ||
          !gram_tile<InHalves, Gram<S>::template InHalves, major, S>(matrix, item, lengths, sums))
        gram_tile<ExactProducts, Gram<S>::template Exactly, major, S>(matrix, item, lengths, sums);
    } else {
      gram_tile<TermProducts<S, 1, 1, 32>, Gram<S>::template AsStored, major, S>(matrix, item, lengths, sums);
    }
    complete_tile<C, float, wide_tile>(arguments, item, item_index, lengths, sums);
  }
}

// C: of values and residuals. S: of the weights. Float weights among float64 ones are computed in double.
template <class C, class S>
ORTHO_KERNEL(tile_threads, tile_blocks, gram_residual, ResidualArguments) {
  for (std::int32_t i = block_index(); i < arguments.items; i += block_count()) {
    const ResidualItem item = residual_item<C>(arguments, i);
    if (arguments.matrices[item.matrix].depth_stride == 1) {
      residual_tile<C, S, Major::depth>(arguments, item, i);
    } else {
      residual_tile<C, S, Major::vectors>(arguments, item, i);
    }
  }
}

}  // namespace ortho::cuda
