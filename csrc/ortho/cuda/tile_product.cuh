// One square tile of a product A B^T by a block of eight warps. Chunks of the depth go through a pipeline in
// shared memory.
//
// Tensor cores cut digits off when they add, and float sums lose digits as they grow: the products of each
// chunk, or of less, are summed apart and then added to the sums of the tile.
#pragma once

#include "chunk_products.cuh"
#include "loaders.cuh"
#include "reduce.cuh"

namespace ortho::cuda {

// Stages of the pipeline: numbers that come through registers are one chunk ahead. Others are as far ahead as
// the memory allows.
template <class Left, class Right>
constexpr int stages_of =
    Left::through_registers || Right::through_registers
        ? 2
        : static_cast<int>(tile_shared_bytes) / (Left::Panel::bytes + Right::Panel::bytes);

#ifdef ORTHO_WITH_LOADERS

// tile_product() with chunks that loaders bring.
template <class Products, class Left, class Right, class Beside, class Sum = typename Products::Sum>
ORTHO_DEVICE void loaded_product(Left& left, Right& right, int chunks, bool same, int columns,
                                 Blocks<Sum, Products::side>& sums, const Beside& beside) {
  using LeftPanel = typename Left::Panel;
  using RightPanel = typename Right::Panel;
  using Panels = LoadedPanels<LeftPanel, RightPanel>;
  const int group = thread_index() / (tile_threads / 2);
  const auto multiply = [&](auto needed) {
    ORTHO_UNROLL_BY(1)
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int stage = chunk % Panels::stages;
      const float factor = left.factor(chunk);
      sync_at(barriers::full(stage, group), barriers::of_group);
      const LeftPanel a{Panels::left(stage)};
      if constexpr (needed == 0) {
        beside(a);
      } else {
        const auto add = [&](const auto& b) {
          Products::template add_columns<needed>(a, b, factor, sums, [&] { beside(a); });
        };
        if constexpr (std::is_same_v<LeftPanel, RightPanel>) {
          add(same ? a : RightPanel{Panels::right(stage)});
        } else {
          add(RightPanel{Panels::right(stage)});
        }
      }
      if (chunk + Panels::stages < chunks) arrive_at(barriers::free(stage), barriers::of_all);
    }
  };
  clear(sums);
  constexpr int side = Products::side;
  if (columns > side / 2) {
    multiply(std::integral_constant<int, side>{});
  } else if (columns > 0) {
    multiply(std::integral_constant<int, side / 2>{});
  } else {
    multiply(std::integral_constant<int, 0>{});
  }
  block_barrier();  // the shared memory may be used for something else
  if (chunks == 0) return;
  left.meet(largest_loaded(0));
  right.meet(largest_loaded(1));
}

#endif

// tile_product() by threads that bring the chunks they multiply.
template <class Products, class Left, class Right, class Beside, class Sum = typename Products::Sum>
ORTHO_DEVICE void staged_product(Left& left, Right& right, int chunks, bool same, int columns,
                                 Blocks<Sum, Products::side>& sums, const Beside& beside) {
  using LeftPanel = typename Left::Panel;
  using RightPanel = typename Right::Panel;
  constexpr int stages = stages_of<Left, Right> < 4 ? stages_of<Left, Right> : 4;
  static_assert(stages >= 2 &&
                stages * (LeftPanel::bytes + RightPanel::bytes) <= static_cast<int>(tile_shared_bytes));
  unsigned char* const memory = shared_memory();
  const auto left_panel = [&](int chunk) {
    return reinterpret_cast<typename LeftPanel::Entry*>(memory + chunk % stages * LeftPanel::bytes);
  };
  const auto right_panel = [&](int chunk) {
    return reinterpret_cast<typename RightPanel::Entry*>(memory + stages * LeftPanel::bytes +
                                                         chunk % stages * RightPanel::bytes);
  };
  const auto right_or_same = [&](int chunk) {
    if constexpr (std::is_same_v<LeftPanel, RightPanel>) {
      if (same) return left_panel(chunk);
    }
    return right_panel(chunk);
  };
  const typename Products::template Place<LeftPanel, RightPanel> place;
  typename Left::Staged staged_left;
  typename Right::Staged staged_right;
  // Numbers come to registers long before they are written to a panel: a chunk's time before.
  const auto bring_to_registers = [&](int chunk) {
    if (chunk >= chunks) return;
    if constexpr (Left::through_registers) left.fetch(staged_left, nullptr);
    if constexpr (Right::through_registers) {
      if (!same) right.fetch(staged_right, nullptr);
    }
  };
  bring_to_registers(0);
  clear(sums);
  // The first rounds only fill the pipeline.
  ORTHO_UNROLL_BY(1)
  for (int chunk = 1 - stages; chunk < chunks; ++chunk) {
    if (chunk >= 0) {
      await_copies<stages - 2>();
      Products::before_barrier();
      block_barrier();  // all threads see the chunk, and none reads the one before any more
    }
    const int next = chunk + stages - 1;
    if (next < chunks) {
      if constexpr (!Left::through_registers) left.fetch(staged_left, left_panel(next));
      if constexpr (!Right::through_registers) {
        if (!same) right.fetch(staged_right, right_panel(next));
      }
    }
    commit_copies();  // an empty group keeps the count of groups right, to the last: none is left over
    const auto write = [&] {
      if (next < chunks) {
        left.write(staged_left, left_panel(next));
        if (!same) right.write(staged_right, right_panel(next));
      }
      bring_to_registers(next + 1);
    };
    const LeftPanel a{left_panel(chunk < 0 ? 0 : chunk)};
    if constexpr (Products::is_asynchronous) {
      if (chunk < 0 || columns == 0) {
        if (chunk >= 0) beside(a);
        write();
        continue;
      }
      Products::add_chunk(a, RightPanel{right_or_same(chunk)}, columns, left.factor(chunk), sums, [&] {
        beside(a);
        write();
      });
    } else {
      if (chunk >= 0) {
        if (columns > 0)
          Products::add_chunk(a, RightPanel{right_or_same(chunk)}, place, left.factor(chunk), sums);
        beside(a);
      }
      write();
    }
  }
  block_barrier();  // the shared memory may be used for something else
}

// sums = A B^T for `chunks` chunks. Of Left and Right, fetch() begins to bring the next chunk, write() brings
// what came to registers, and factor(chunk) is that of the chunk's products. `same`: both are the same
// vectors, and the left panel serves as the right one. Of its warp's columns a thread needs so many: the sums
// of others, and all sums of a warp that needs none, are zero. beside(panel) is called with each chunk of the
// left operand.
template <class Products, class Left, class Right, class Beside, class Sum = typename Products::Sum>
ORTHO_DEVICE void tile_product(Left& left, Right& right, int chunks, bool same, int columns,
                               Blocks<Sum, Products::side>& sums, const Beside& beside) {
#ifdef ORTHO_WITH_LOADERS
  if constexpr (Products::is_asynchronous)
    loaded_product<Products>(left, right, chunks, same, columns, sums, beside);
  else
#endif
    staged_product<Products>(left, right, chunks, same, columns, sums, beside);
}

// Whether the products of float16 terms are those of the numbers, for the whole block: none was too large for
// float16, which makes sums infinite or NaN, and neither operand was so small that digits got lost.
template <class Left, class Right, class Sum, int N>
ORTHO_DEVICE bool hold_all_digits(const Left& left, const Right& right, const Sum (&sums)[N][N][4]) {
  float fault = 0;
  for_indices<32 * N>([&](int i, int j, int e) { fault += 0 * sums[i][j][e]; });
  double counts[3] = {fault == 0 ? 0.0 : 1.0, left.is_large() ? 1.0 : 0.0, right.is_large() ? 1.0 : 0.0};
  sum_over_block<tile_threads>(counts);
  return counts[0] == 0 && counts[1] > 0 && counts[2] > 0;
}

}  // namespace ortho::cuda
