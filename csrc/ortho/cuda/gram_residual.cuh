// R = Gram - I of all matrices of a launch: its lower triangle, packed and weighted, and the weighted sums of
// squares. One item is a tile of a triangle for a part of the depth.
#pragma once

#include "../options.h"
#include "arguments.h"
#include "gram_diagonal.cuh"
#include "part_slots.cuh"
#include "reduce.cuh"
#include "terms.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

struct ResidualMatrix : MatrixArguments {
  std::int32_t first_slot_block;
  std::int32_t part_depth;
};

struct ResidualArguments {
  void* values;
  void* residuals;          // null: keep nothing
  double* partials;         // the slots of all parts
  double* squares;          // for each item: of the diagonal, of the entries below it
  std::uint32_t* counters;  // of items taken; of parts that are there, one an item; of tiles, one a matrix
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
  bool in_double;
};

template <class C>
ORTHO_DEVICE ResidualItem residual_item(const ResidualArguments& arguments, std::int32_t item) {
  ResidualItem result;
  result.matrix = find_matrix(arguments.matrices, arguments.count, item);
  const ResidualMatrix& matrix = arguments.matrices[result.matrix];
  result.in_double = std::is_same_v<C, double> || is_small({matrix.order, matrix.depth});
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

// Of whoever takes the item's depth in chunks.
template <class Taker>
ORTHO_DEVICE int chunks_of(const ResidualItem& item) {
  return (item.end - item.begin + Taker::depth - 1) / Taker::depth;
}

// Float sums lose too many digits of the diagonal: in tiles on it the squares of the vectors are summed
// apart.
template <class Sum>
constexpr bool diagonal_apart = std::is_same_v<Sum, float>;
// Whether this thread has such sums.
template <class Places>
ORTHO_DEVICE bool has_lengths(const ResidualItem& item) {
  return item.row == item.column && SquaredLengths<Places>::has_sums(computed_here(thread_index()));
}

// Split-K: returns whether this block is the last-arriving one of `all`. It then sees what the others wrote.
ORTHO_DEVICE bool arrives_last(std::uint32_t* counter, std::int32_t all) {
  return count_up_by_block(counter) + 1 == static_cast<std::uint32_t>(all);
}

// Makes R of the Gram. Where the diagonal was summed apart, it is taken from there.
template <class Places, class Sum, int N>
ORTHO_DEVICE void subtract_identity(const ResidualItem& item, const SquaredLengths<Places>& lengths,
                                    Sum (&sums)[N][N][4]) {
  if (item.row != item.column) return;
  if constexpr (diagonal_apart<Sum>) {
    auto* const diagonal = reinterpret_cast<Sum*>(shared_memory());
    if (has_lengths<Places>(item)) {
      ORTHO_UNROLL
      for (int i = 0; i < lengths.of_thread; ++i)
        diagonal[lengths.vector(i)] = static_cast<Sum>(static_cast<double>(lengths.sums[i]) - 1);
    }
    block_barrier();
    for_sums<Places>(sums, [&](int r, int c, Sum& sum) {
      if (r == c) sum = diagonal[r];
    });
    block_barrier();  // the memory may be used again
  } else {
    for_sums<Places>(sums, [](int r, int c, Sum& sum) {
      if (r == c) sum -= 1;
    });
  }
}

// Sums the squares of a tile's entries, of the diagonal and of the entries below it, and keeps the weighted
// entries: through shared memory, so that a warp writes neighbors.
template <bool OnDiagonal, class Places, class C, class Sum, int N>
ORTHO_DEVICE void finish_entries(const ResidualArguments& arguments, const ResidualItem& item,
                                 std::int32_t order, C* kept, Sum (&sums)[N][N][4], double (&squares)[2]) {
  constexpr int side = 32 * N, pitch = side + 8;  // so that threads meet all banks
  static_assert(side * pitch * sizeof(C) <= tile_shared_bytes);
  const auto diagonal = static_cast<Sum>(arguments.diagonal);
  const auto off_diagonal = static_cast<Sum>(arguments.off_diagonal);
  C* const memory = reinterpret_cast<C*>(shared_memory());
  for_rows<Places>(sums, [&](int r, const auto& for_columns) {
    if (!within(item.row + r, order)) return;
    C* const line = memory + r * pitch;
    Sum below = 0;
    const auto finish = [&](int c, Sum entry) {
      const bool on = OnDiagonal && c == r;
      line[c] = static_cast<C>(entry * (on ? diagonal : off_diagonal));
      if (on) squares[0] += entry * entry;
      if (!OnDiagonal || c < r) below += entry * entry;
    };
    for_columns([&](int c, Sum first, Sum second) {
      finish(c, first);
      finish(c + 1, second);
    });
    squares[1] += below;
  });
  if (!kept) return;
  block_barrier();
  ORTHO_UNROLL_BY(2)
  for (int r = thread_index() / warp_size; r < side; r += tile_threads / warp_size) {
    const std::int32_t row = item.row + r;
    if (!within(row, order)) break;
    C* const target = kept + triangle(row) + item.column;
    ORTHO_UNROLL
    for (int c = thread_index() % warp_size; c < side; c += warp_size) {
      if (!OnDiagonal || within(c, r + 1)) target[c] = memory[r * pitch + c];
    }
  }
  block_barrier();  // the memory may be used again
}

// Makes what the tile has to give. The last-arriving block of a matrix sums over all its tiles, in order.
template <class C, class Places, class Sum, int N>
ORTHO_DEVICE void finish_tile(const ResidualArguments& arguments, const ResidualItem& item,
                              Sum (&sums)[N][N][4]) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  C* const kept = arguments.residuals ? static_cast<C*>(arguments.residuals) + matrix.offset : nullptr;
  double squares[2] = {0, 0};
  if (item.row == item.column) {
    finish_entries<true, Places>(arguments, item, matrix.order, kept, sums, squares);
  } else {
    finish_entries<false, Places>(arguments, item, matrix.order, kept, sums, squares);
  }
  sum_over_block<tile_threads>(squares);
  double* const own = arguments.squares + 2 * std::int64_t{matrix.first_item};
  if (thread_index() == 0) {
    own[2 * item.tile] = squares[0];
    own[2 * item.tile + 1] = squares[1];
  }
  const std::int32_t side = matrix.order < 1 ? 1 : (matrix.order + 32 * N - 1) / (32 * N);
  const auto tiles = static_cast<std::int32_t>(triangle(side));
  if (!arrives_last(arguments.counters + 1 + arguments.items + item.matrix, tiles)) return;
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
template <class Places, class Sum, int N>
ORTHO_DEVICE bool add_parts(const ResidualArguments& arguments, const ResidualItem& item,
                            std::int32_t item_index, SquaredLengths<Places>& lengths, Sum (&sums)[N][N][4]) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  const std::int32_t first_item = item_index - item.part;  // of the tile
  const PartSlots<Sum, Places> slots(
      arguments.partials + std::int64_t{matrix.first_slot_block} * slot_block_numbers, matrix.order,
      first_item - matrix.first_item);
  const bool with_lengths = diagonal_apart<Sum> && has_lengths<Places>(item);
  if constexpr (diagonal_apart<Sum>) {
    if (with_lengths) {
      ORTHO_UNROLL
      for (int i = 0; i < lengths.of_thread; ++i)
        slots.lengths_of(item.part)[i * warp_size] = lengths.sums[i];
    }
  }
  Sum* const own = slots.sums_of(item.part);
  slots.for_kept(sums, [&](int distance, Sum sum) { own[distance] = sum; });
  if (!arrives_last(arguments.counters + 1 + first_item, item.parts)) return false;
  lengths = {};
  clear(sums);
  for (std::int32_t part = 0; part < item.parts; ++part) {
    const Sum* const other = slots.sums_of(part);
    slots.for_kept(sums, [&](int distance, Sum& sum) { sum += read_past_l1(other + distance); });
    if constexpr (diagonal_apart<Sum>) {
      if (with_lengths) {
        ORTHO_UNROLL
        for (int i = 0; i < lengths.of_thread; ++i)
          lengths.sums[i] += read_past_l1(slots.lengths_of(part) + i * warp_size);
      }
    }
  }
  return true;
}

// The sums of a tile for the item's part of the depth.
template <class Products, class Own, class Places = typename Products::Places,
          class Sum = typename Products::Sum>
ORTHO_DEVICE void gram_tile(const ResidualItem& item, std::int32_t order, Own& left, Own& right,
                            SquaredLengths<Places>& lengths, Blocks<Sum, Products::side>& sums) {
  const bool same = item.row == item.column;
  const int thread = computed_here(thread_index());
  const bool looks = same && Places::looks(thread);
  const int columns = same ? Places::columns_needed_on_diagonal(thread, order - item.row)
                           : Places::columns_needed(thread, order - item.row, order - item.column);
  lengths = {};
  const int chunks = chunks_of<Products>(item);
  tile_product<Products>(left, right, chunks, same, columns, sums, [&](const auto& panel) {
    if constexpr (diagonal_apart<Sum>) {
      if (looks) lengths.template add_chunk<Products::depth>(panel);
    }
  });
  if constexpr (diagonal_apart<Sum>) {
    if (same) lengths.gather();
  }
}

// What the float16 terms of an item's weights are multiplied by.
struct HalfScale {
  float value = half_scale;
  bool measured = false;
};

// The same by float16 terms. Returns whether the sums are right: weights may be too large or too small for
// the scales.
template <class Products, class Own, class S>
ORTHO_DEVICE bool gram_tile_in_halves(const Operand<S>& operand, const ResidualItem& item, HalfScale scale,
                                      SquaredLengths<HalfPlaces>& lengths, Blocks<float, wide_tile>& sums) {
  Own left(operand, item.row, item.begin, scale.value), right(operand, item.column, item.begin, scale.value);
  gram_tile<Products>(item, operand.vectors, left, right, lengths, sums);
  if (!scale.measured && !hold_all_digits(left, item.row == item.column ? left : right, sums)) return false;
  for (int factor = 0; factor < 2; ++factor) {  // one after the other: their product may be no float
    multiply(sums, 1 / scale.value);
    lengths.multiply(1 / scale.value);
  }
  return true;
}

// By which the weights of an item fit float16.
template <class S>
ORTHO_DEVICE HalfScale measured_scale(const Operand<S>& operand, const ResidualItem& item) {
  HalfScale scale;
  with_major(operand, [&](auto access) {
    using Own = SplitOperand<S, float16, 2, 16, decltype(access)>;
    const int chunks = chunks_of<Own>(item);
    const float rows = Own(operand, item.row, item.begin).largest(chunks);
    scale.value = scale_for(larger_magnitude(rows, Own(operand, item.column, item.begin).largest(chunks)));
  });
  scale.measured = true;
  return scale;
}

// Makes R of the sums and works on it, if they are those of the whole depth.
template <class C, class Places, class Sum, int N>
ORTHO_DEVICE void complete_tile(const ResidualArguments& arguments, const ResidualItem& item,
                                std::int32_t item_index, SquaredLengths<Places>& lengths,
                                Sum (&sums)[N][N][4]) {
  if (item.parts > 1 && !add_parts(arguments, item, item_index, lengths, sums)) return;
  subtract_identity(item, lengths, sums);
  finish_tile<C, Places>(arguments, item, sums);
}

template <class S>
ORTHO_DEVICE Operand<S> gram_operand(const ResidualArguments& arguments, const ResidualItem& item) {
  const ResidualMatrix& matrix = arguments.matrices[item.matrix];
  return {static_cast<const S*>(matrix.data), matrix.order_stride, matrix.depth_stride, matrix.order,
          item.end};
}

// Returns whether the item is done, or must be begun anew with another scale. Calls free_loaders() when
// its product is there, and only what this thread has is needed any more.
template <class C, class S, class FreeLoaders>
ORTHO_DEVICE bool residual_tile(const ResidualArguments& arguments, std::int32_t index, HalfScale& scale,
                                const FreeLoaders& free_loaders) {
  const ResidualItem item = residual_item<C>(arguments, index);
  // Worked out anew behind the product, so that nothing of it takes the product's registers.
  const auto item_again = [&] { return residual_item<C>(arguments, computed_here(index)); };
  const Operand<S> operand = gram_operand<S>(arguments, item);
  if (item.in_double) {
    SquaredLengths<Fp64::Places> none;
    Blocks<double, narrow_tile> sums;
    with_access(operand, [&](auto access) {
      using Own = StoredOperand<double, S, narrow_tile, Fp64::depth, decltype(access)>;
      Own left(operand, item.row, item.begin), right(operand, item.column, item.begin);
      gram_tile<Fp64>(item, operand.vectors, left, right, none, sums);
    });
    free_loaders();
    complete_tile<C>(arguments, item_again(), index, none, sums);
    return true;
  }
  if constexpr (std::is_same_v<C, float>) {
    SquaredLengths<HalfPlaces> lengths;
    Blocks<float, wide_tile> sums;
    bool is_right = true;
    with_access(operand, [&](auto access) {
      using Own = HalfOperand<S, 2, decltype(access)>;
      if constexpr (std::is_same_v<S, float>) {
        using Products = HalfProducts<float16, 2, 2, half_depth<S>>;
        is_right = gram_tile_in_halves<Products, Own>(operand, item, scale, lengths, sums);
      } else {
        Own left(operand, item.row, item.begin), right(operand, item.column, item.begin);
        gram_tile<HalfProducts<S, 1, 1, half_depth<S>>>(item, operand.vectors, left, right, lengths, sums);
      }
    });
    const ResidualItem again = item_again();
    if constexpr (std::is_same_v<S, float>) {
      if (!is_right) {
        scale = measured_scale<S>(gram_operand<S>(arguments, again), again);
        return false;
      }
    }
    free_loaders();
    complete_tile<C>(arguments, again, index, lengths, sums);
  }
  return true;
}

#ifdef ORTHO_WITH_LOADERS

// What loaders do for residual_tile().
template <class S>
ORTHO_DEVICE void bring_residual_items(const ResidualArguments& arguments) {
  serve([&](std::int32_t index, float scale) {
    const ResidualItem item = residual_item<float>(arguments, index);
    const Operand<S> operand = gram_operand<S>(arguments, item);
    with_access(operand, [&](auto access) {
      using Own = HalfOperand<S, 2, decltype(access)>;
      Own left(operand, item.row, item.begin, scale), right(operand, item.column, item.begin, scale);
      bring_chunks(left, right, chunks_of<Own>(item), item.row == item.column);
    });
  });
}

#endif

// C: of values and residuals. S: of the weights. Float weights among float64 ones are computed in double.
template <class C, class S>
ORTHO_KERNEL(tile_block_threads<C>, tile_blocks, gram_residual, ResidualArguments) {
#ifdef ORTHO_WITH_LOADERS
  if constexpr (has_loaders<C>) {
    if (is_loader()) {
      give_registers<loader_registers>();
      return bring_residual_items<S>(arguments);
    }
    take_registers<computing_registers>();
  }
#endif
  const auto loads = [&](std::int32_t index) {
    const ResidualItem item = residual_item<C>(arguments, index);
    return !item.in_double && item.begin < item.end;
  };
  TakenItems<C, decltype(loads)> items(arguments.counters, arguments.items, loads);
  while (items.begin()) {
    HalfScale scale;
    while (!residual_tile<C, S>(arguments, items.item, scale, [&] { items.free_loaders(); })) {
      if (has_loaders<C> && loads(items.item)) post(items.item, scale.value);
    }
  }
}

}  // namespace ortho::cuda
