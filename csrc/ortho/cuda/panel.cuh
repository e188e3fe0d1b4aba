// Panels: 64 vectors of an operand for one chunk of the depth, in shared memory.
#pragma once

#include "device.cuh"
#include "plan.h"

namespace ortho::cuda {

// Vectors of numbers in device memory with any strides.
template <class S>
struct Operand {
  const S* data;
  std::int64_t vector_stride, depth_stride;
  std::int32_t vectors;
  std::int32_t depth_end;

  ORTHO_DEVICE const S* at(std::int64_t vector, std::int64_t k) const {
    return data + vector * vector_stride + k * depth_stride;
  }
};

// Which direction of an operand is contiguous in memory; its panels are laid out the same way.
enum class Lies { along_depth, across_depth };

// Where the entries of a panel are, in numbers of E: rows are so padded that the threads that read a fragment
// meet all banks.
template <class E, int Depth, Lies lies>
struct Layout {
  static constexpr int row = lies == Lies::along_depth ? Depth : tile_side;
  static constexpr int rows = lies == Lies::along_depth ? tile_side : Depth;
  static constexpr int padding = lies == Lies::along_depth ? 16 / sizeof(E) : (sizeof(E) == 8 ? 4 : 8);
  static constexpr int pitch = row + padding;
  static constexpr int bytes = rows * pitch * static_cast<int>(sizeof(E));
  static constexpr int vector_step = lies == Lies::along_depth ? pitch : 1;
  static constexpr int depth_step = lies == Lies::along_depth ? 1 : pitch;
};

template <class E, int Depth, Lies lies>
struct Panel {
  using Entry = E;
  using Own = Layout<E, Depth, lies>;
  static constexpr Lies lie = lies;
  const E* entries;
  ORTHO_DEVICE E at(int vector, int k) const {
    return entries[vector * Own::vector_step + k * Own::depth_step];
  }
};

// 16 bytes at a time can be copied where every row of a panel begins at a multiple of 16 bytes.
template <class S>
ORTHO_DEVICE bool is_aligned(const Operand<S>& operand, Lies lies) {
  const bool along = lies == Lies::along_depth;
  const std::int64_t inner = along ? operand.depth_stride : operand.vector_stride;
  const std::int64_t outer = along ? operand.vector_stride : operand.depth_stride;
  return inner == 1 && (reinterpret_cast<std::uintptr_t>(operand.data) | (outer * sizeof(S))) % 16 == 0;
}

// Brings vectors [first, first + 64) for the depth [k, k + Depth) into a panel: zeros beyond the operand's
// ends. E is S, or what S is converted to.
template <class E, int Depth, Lies lies, class S>
ORTHO_DEVICE void stage(const Operand<S>& operand, bool aligned, std::int32_t first, std::int32_t k,
                        E* panel) {
  using L = Layout<E, Depth, lies>;
  constexpr bool along = lies == Lies::along_depth;
  if constexpr (std::is_same_v<E, S>) {
    if (aligned) {
      constexpr int piece = 16 / sizeof(E), pieces = L::row / piece;
      const std::int32_t inner_end = along ? operand.depth_end - k : operand.vectors - first;
      const std::int32_t outer_end = along ? operand.vectors - first : operand.depth_end - k;
      ORTHO_UNROLL
      for (int p = thread_index(); p < L::rows * pieces; p += tile_threads) {
        const int outer = p / pieces, inner = p % pieces * piece;
        int valid = within(outer, outer_end) ? inner_end - inner : 0;
        valid = valid < 0 ? 0 : valid > piece ? piece : valid;
        const S* source = operand.data;
        if (valid > 0)
          source = along ? operand.at(first + outer, k + inner) : operand.at(first + inner, k + outer);
        copy_async<16>(panel + outer * L::pitch + inner, source, valid * static_cast<int>(sizeof(E)));
      }
      return;
    }
  }
  ORTHO_UNROLL_BY(4)
  for (int p = thread_index(); p < tile_side * Depth; p += tile_threads) {
    const int vector = along ? p / Depth : p % tile_side, depth = along ? p % Depth : p / tile_side;
    const bool valid = within(first + vector, operand.vectors) && within(k + depth, operand.depth_end);
    const S* source = valid ? operand.at(first + vector, k + depth) : operand.data;
    E* target = panel + vector * L::vector_step + depth * L::depth_step;
    if constexpr (std::is_same_v<E, S> && sizeof(E) >= 4) {
      copy_async<sizeof(E)>(target, source, valid ? static_cast<int>(sizeof(E)) : 0);
    } else {
      S stored{};
      if (valid) stored = *source;
      if constexpr (std::is_same_v<E, S>) {
        *target = stored;
      } else {
        *target = number_from<E>(stored);
      }
    }
  }
}

}  // namespace ortho::cuda
