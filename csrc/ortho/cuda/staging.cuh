// Panels: 64 vectors of an operand for one chunk of the depth, in shared memory.
#pragma once

#include "device.cuh"
#include "launch_plan.h"

namespace ortho::cuda {

// Vectors of numbers in device memory with any strides.
template <class S>
struct Operand {
  const S* data;
  std::int64_t vector_stride, depth_stride;
  std::int32_t vectors;
  std::int32_t depth_end;
};

// What is contiguous in an operand's memory, the depth or the vectors. Its panels are laid out alike.
enum class Major { depth, vectors };

// Where the entries of a panel are, in numbers of E: rows are so padded that the threads that read a fragment
// meet all banks.
template <class E, int Depth, Major major>
struct PanelLayout {
  static constexpr int row = major == Major::depth ? Depth : tile_side;
  static constexpr int rows = major == Major::depth ? tile_side : Depth;
  static constexpr int padding = major == Major::depth ? 16 / sizeof(E) : (sizeof(E) == 8 ? 4 : 8);
  static constexpr int pitch = row + padding;
  static constexpr int bytes = rows * pitch * static_cast<int>(sizeof(E));
  static constexpr int vector_step = major == Major::depth ? pitch : 1;
  static constexpr int depth_step = major == Major::depth ? 1 : pitch;
};

template <class E, int Depth, Major panel_major>
struct Panel {
  using Entry = E;
  using Own = PanelLayout<E, Depth, panel_major>;
  static constexpr Major major = panel_major;
  const E* entries;
  ORTHO_DEVICE E at(int vector, int k) const {
    return entries[vector * Own::vector_step + k * Own::depth_step];
  }
};

// 16 bytes at a time can be copied where every row of a panel begins and ends at a multiple of 16 bytes.
template <class S>
ORTHO_DEVICE bool is_aligned(const Operand<S>& operand, Major major) {
  const bool along = major == Major::depth;
  const std::int64_t inner = along ? operand.depth_stride : operand.vector_stride;
  const std::int64_t outer = along ? operand.vector_stride : operand.depth_stride;
  const std::int64_t numbers = along ? operand.depth_end : operand.vectors;
  return inner == 1 &&
         (reinterpret_cast<std::uintptr_t>(operand.data) | (outer | numbers) * sizeof(S)) % 16 == 0;
}

// Brings the rows of a panel from `corner` on, `Piece` numbers at a time: zeros where a row or the rows are
// at their end. A thread stays in its column of pieces.
template <int Piece, class L, class E, class S>
ORTHO_DEVICE void stage_rows(const S* corner, std::int64_t row_stride, std::int64_t stride, std::int32_t rows,
                             std::int32_t numbers, E* panel) {
  constexpr int pieces = L::row / Piece, rows_at_once = tile_threads / pieces;
  const int first_row = thread_index() / pieces, number = thread_index() % pieces * Piece;
  const bool in_row = within(number, numbers);
  const S* source = corner + first_row * row_stride + number * stride;
  E* target = panel + first_row * L::pitch + number;
  ORTHO_UNROLL_BY(4)
  for (int row = first_row; row < L::rows; row += rows_at_once) {
    const bool valid = in_row && within(row, rows);
    if constexpr (std::is_same_v<E, S> && Piece * sizeof(E) >= 4) {
      copy_async<Piece * sizeof(E)>(target, source, valid);
    } else {
      static_assert(Piece == 1);
      S stored{};
      if (valid) stored = *source;
      if constexpr (std::is_same_v<E, S>) {
        *target = stored;
      } else {
        *target = number_from<E>(stored);
      }
    }
    source += rows_at_once * row_stride;
    target += rows_at_once * L::pitch;
  }
}

// Brings vectors [first, first + 64) for the depth [k, k + Depth) into a panel. E is S, or what S is
// converted to.
template <class E, int Depth, Major major, class S>
ORTHO_DEVICE void stage(const Operand<S>& operand, bool aligned, std::int32_t first, std::int32_t k,
                        E* panel) {
  using L = PanelLayout<E, Depth, major>;
  constexpr bool along = major == Major::depth;
  const S* const corner = operand.data + first * operand.vector_stride + k * operand.depth_stride;
  const std::int64_t row_stride = along ? operand.vector_stride : operand.depth_stride;
  const std::int64_t stride = along ? operand.depth_stride : operand.vector_stride;
  const std::int32_t vectors = operand.vectors - first, depth = operand.depth_end - k;
  const std::int32_t rows = along ? vectors : depth, numbers = along ? depth : vectors;
  if constexpr (std::is_same_v<E, S>) {
    if (aligned) return stage_rows<16 / sizeof(E), L>(corner, row_stride, 1, rows, numbers, panel);
  }
  stage_rows<1, L>(corner, row_stride, stride, rows, numbers, panel);
}

}  // namespace ortho::cuda
