// R = Gram - I of all matrices of a launch: its lower triangle, packed and weighted, and the weighted sums of
// squares. One item is a tile of a triangle for a part of the depth.
#pragma once

#include "../soft_orthogonality.h"
#include "gram_diagonal.cuh"
#include "reduce.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

struct ResidualMatrix {
  const void* data;
  std::int64_t order_stride, depth_stride;
  std::int64_t offset;  // of its triangle in the residuals
  std::int32_t order, depth;
  std::int32_t first_item;
  std::int32_t first_slot_block;
  std::int32_t part_depth;
  std::int32_t index;  // of its value
};

struct ResidualArguments {
  void* values;
  void* residuals;          // null: keep nothing
  double* partials;         // the slots of all parts
  double* squares;          // for each item: of the diagonal, of the entries below it
  std::uint32_t* counters;  // for each item, then for each matrix: how many parts, how many tiles are there
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
};

ORTHO_DEVICE std::int32_t tile_row_of(std::int32_t tile) {
  auto row = static_cast<std::int32_t>((square_root(8.0 * tile + 1) - 1) / 2);
  while (triangle(row) > tile) --row;
  while (triangle(row + 1) <= tile) ++row;
  return row;
}

ORTHO_DEVICE ResidualItem residual_item(const ResidualArguments& arguments, std::int32_t item) {
  ResidualItem result;
  result.matrix = find_matrix(arguments.matrices, arguments.count, item);
  const ResidualMatrix& matrix = arguments.matrices[result.matrix];
  const std::int32_t length = matrix.part_depth;
  result.parts = matrix.depth <= length ? 1 : (matrix.depth + length - 1) / length;
  result.tile = (item - matrix.first_item) / result.parts;
  result.part = (item - matrix.first_item) % result.parts;
  const std::int32_t row = tile_row_of(result.tile);
  result.row = row * tile_side;
  result.column = (result.tile - static_cast<std::int32_t>(triangle(row))) * tile_side;
  result.begin = result.part * length;
  result.end = matrix.depth - result.begin < length ? matrix.depth : result.begin + length;
  return result;
}

template <class Products, class S, Lies lies>
struct GramOperand {
  using Entry = typename Products::Entry;
  using Panel = cuda::Panel<Entry, Products::depth, lies>;
  Operand<S> operand;
  bool aligned;
  std::int32_t first, begin;

  ORTHO_DEVICE void stage(int chunk, Entry* panel) const {
    cuda::stage<Entry, Products::depth, lies>(operand, aligned, first, begin + chunk * Products::depth,
                                              panel);
  }
};

// Float sums are not good enough for the diagonal. The warp that has nothing else to do in its tiles, since
// its entries lie above it, sums its squares up.
template <class Sum>
constexpr bool diagonal_apart = std::is_same_v<Sum, float>;
ORTHO_DEVICE bool above_diagonal(const ResidualItem& item) {
  return item.row == item.column && warp_row() < warp_column();
}

// Whether this block is the last of `all` that come here: then it sees what the others wrote before.
ORTHO_DEVICE bool comes_last(std::uint32_t* counter, std::int32_t all) {
  auto* last = reinterpret_cast<std::int32_t*>(shared_memory());
  block_barrier();
  // A fence is cumulative: thread 0's, behind a barrier, releases what the whole block wrote. So too its
  // acquire.
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

// R from the Gram; where the diagonal was summed apart, it comes from there.
template <class Sum>
ORTHO_DEVICE void subtract_identity(const ResidualItem& item, const SquaredLengths& lengths,
                                    Blocks<Sum>& sums) {
  if (item.row != item.column) return;
  if constexpr (diagonal_apart<Sum>) {
    auto* const diagonal = reinterpret_cast<Sum*>(shared_memory());
    if (above_diagonal(item)) {
      ORTHO_UNROLL
      for (int i = 0; i < lengths.of_lane; ++i)
        diagonal[lengths.vector(i)] = static_cast<Sum>(static_cast<double>(lengths.sums[i]) - 1);
    }
    block_barrier();
    for_sums<Sum>(sums, [&](int r, int c, Sum& sum) {
      if (r == c) sum = diagonal[r];
    });
    block_barrier();  // the memory may be used again
  } else {
    for_sums<Sum>(sums, [](int r, int c, Sum& sum) {
      if (r == c) sum -= 1;
    });
  }
}

// Keeps the weighted entries of R, and sums their squares up: of the tile, and by the block that has the
// matrix's last tile, of all its tiles in order.
template <class C, class Sum>
ORTHO_DEVICE void finish_tile(const ResidualArguments& arguments, const ResidualItem& item,
                              Blocks<Sum>& sums) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  C* const kept = arguments.residuals ? static_cast<C*>(arguments.residuals) + matrix.offset : nullptr;
  double squares[2] = {0, 0};
  for_sums<Sum>(sums, [&](int r, int c, Sum entry) {
    const std::int32_t row = item.row + r, column = item.column + c;
    if (!within(row, matrix.order) || !within(column, std::int64_t{row} + 1)) return;
    const bool on_diagonal = row == column;
    const double square = static_cast<double>(entry) * static_cast<double>(entry);
    squares[0] += on_diagonal ? square : 0.0;
    squares[1] += on_diagonal ? 0.0 : square;
    if (kept) {
      const double weight = on_diagonal ? arguments.diagonal : arguments.off_diagonal;
      kept[triangle(row) + column] = static_cast<C>(entry * static_cast<Sum>(weight));
    }
  });
  sum_over_block<tile_threads>(squares);
  double* const own = arguments.squares + 2 * std::int64_t{matrix.first_item};
  if (thread_index() == 0) {
    own[2 * item.tile] = squares[0];
    own[2 * item.tile + 1] = squares[1];
  }
  const std::int32_t side = matrix.order < 1 ? 1 : (matrix.order + tile_side - 1) / tile_side;
  const auto tiles = static_cast<std::int32_t>(triangle(side));
  if (!comes_last(arguments.counters + arguments.items + item.matrix, tiles)) return;
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

// Numbers the blocks of a square from a corner on, so that those of a smaller square come first.
constexpr int square_shell(int row, int column) {
  return row > column ? row * row + column : column * column + column + row;
}

// Where the depth is cut, the block that brings a tile's last part adds all parts up, always in the same
// order.
template <class Sum>
ORTHO_DEVICE bool add_parts(const ResidualArguments& arguments, const ResidualItem& item,
                            std::int32_t item_index, SquaredLengths& lengths, Blocks<Sum>& sums) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  const std::int64_t numbers = slot_blocks(matrix.order) * slot_block_numbers;
  const auto memory_of = [&](std::int32_t part) {
    const std::int64_t index = item_index - item.part + part - matrix.first_item;
    return arguments.partials + std::int64_t{matrix.first_slot_block} * slot_block_numbers + index * numbers;
  };
  // The blocks of a warp are together. An order that the first warp computes alone has none of the others.
  const int warp = thread_index() / warp_size;
  const bool alone = matrix.order <= warp_side;
  const std::int32_t across = alone && warp > 0 ? 0 : slot_blocks_across(matrix.order);
  const int first = warp * warp_side * warp_side + thread_index() % warp_size;
  const auto slot = [&](std::int32_t part) { return reinterpret_cast<Sum*>(memory_of(part)) + first; };
  // Calls visit(place, sum) for the sums that have a place in a slot; lanes are neighbors there.
  const auto for_slot = [&](const auto& visit) {
    ORTHO_UNROLL
    for (int i = 0; i < block_rows; ++i) {
      ORTHO_UNROLL
      for (int j = 0; j < block_columns; ++j) {
        ORTHO_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int row = 2 * i + e / 2;
          if (!within(row, across) || !within(j, across)) continue;
          visit(square_shell(row, j) * slot_block_numbers + e % 2 * warp_size, sums[i][j][e]);
        }
      }
    }
  };
  // Float sums are of orders that fill a tile, and take half of a slot.
  static_assert(small_order >= tile_side);
  const auto lengths_slot = [&](std::int32_t part) {
    return reinterpret_cast<TwoFloat*>(memory_of(part) + tile_side * tile_side / 2) + lengths.vector(0);
  };
  const bool has_lengths = diagonal_apart<Sum> && above_diagonal(item);
  if (has_lengths) {
    ORTHO_UNROLL
    for (int i = 0; i < lengths.of_lane; ++i) lengths_slot(item.part)[i * warp_size] = lengths.sums[i];
  }
  Sum* const own = slot(item.part);
  for_slot([&](int place, Sum sum) { own[place] = sum; });
  if (!comes_last(arguments.counters + item_index - item.part, item.parts)) return false;
  lengths = {};
  for_sums<Sum>(sums, [](int, int, Sum& sum) { sum = 0; });
  for (std::int32_t part = 0; part < item.parts; ++part) {
    const Sum* const other = slot(part);
    for_slot([&](int place, Sum& sum) { sum += read_past_l1(other + place); });
    if (has_lengths) {
      ORTHO_UNROLL
      for (int i = 0; i < lengths.of_lane; ++i)
        lengths.sums[i] += read_past_l1(lengths_slot(part) + i * warp_size);
    }
  }
  return true;
}

template <class C, class Products, class S, Lies lies>
ORTHO_DEVICE void residual_tile(const ResidualArguments& arguments, const ResidualItem& item,
                                std::int32_t item_index) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  const Operand<S> operand{static_cast<const S*>(matrix.data), matrix.order_stride, matrix.depth_stride,
                           matrix.order, item.end};
  const bool aligned = is_aligned(operand, lies);
  const GramOperand<Products, S, lies> left{operand, aligned, item.row, item.begin};
  const GramOperand<Products, S, lies> right{operand, aligned, item.column, item.begin};
  const int chunks = (item.end - item.begin + Products::depth - 1) / Products::depth;
  const bool above = above_diagonal(item);
  const bool beyond = item.row + warp_row() >= matrix.order || item.column + warp_column() >= matrix.order;
  using Sum = typename Products::Sum;
  Blocks<Sum> sums;
  SquaredLengths lengths{};
  tile_product<Products>(left, right, chunks, above || beyond, sums, [&](const auto& panel) {
    if constexpr (diagonal_apart<Sum>) {
      if (above) lengths.template add_chunk<Products::depth>(panel);
    }
  });
  if (item.parts > 1 && !add_parts<Sum>(arguments, item, item_index, lengths, sums)) return;
  subtract_identity<Sum>(item, lengths, sums);
  finish_tile<C, Sum>(arguments, item, sums);
}

template <class S>
struct GramProducts {
  using type = Halves<S>;
};
template <>
struct GramProducts<float> {
  using type = Bfloat16Parts<3, 3>;
};

template <class C, class S, Lies lies>
ORTHO_DEVICE void residual_tile_in(const ResidualArguments& arguments, const ResidualItem& item,
                                   std::int32_t item_index) {
  // So few entries don't average the rounding errors of float sums out.
  if (std::is_same_v<C, double> || arguments.matrices[item.matrix].order <= small_order) {
    residual_tile<C, InDouble, S, lies>(arguments, item, item_index);
  } else if constexpr (std::is_same_v<C, float>) {
    residual_tile<C, typename GramProducts<S>::type, S, lies>(arguments, item, item_index);
  }
}

// C: of values and residuals. S: of the weights. Float weights among float64 ones are computed in double.
template <class C, class S>
ORTHO_KERNEL(tile_threads, tile_blocks, gram_residual, ResidualArguments) {
  for (std::int32_t i = block_index(); i < arguments.items; i += block_count()) {
    const ResidualItem item = residual_item(arguments, i);
    if (arguments.matrices[item.matrix].depth_stride == 1) {
      residual_tile_in<C, S, Lies::along_depth>(arguments, item, i);
    } else {
      residual_tile_in<C, S, Lies::across_depth>(arguments, item, i);
    }
  }
}

}  // namespace ortho::cuda
