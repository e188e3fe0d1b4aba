// Panels: the vectors of an operand for one chunk of the depth, in shared memory, and numbers that get there
// as they are stored.
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
template <class E, int Side, int Depth, Major major>
struct PanelLayout {
  static constexpr int row = major == Major::depth ? Depth : Side;
  static constexpr int rows = major == Major::depth ? Side : Depth;
  static constexpr int padding = major == Major::depth ? 16 / sizeof(E) : (sizeof(E) == 8 ? 4 : 8);
  static constexpr int pitch = row + padding;
  static constexpr int numbers = rows * pitch;
  static constexpr int vector_step = major == Major::depth ? pitch : 1;
  static constexpr int depth_step = major == Major::depth ? 1 : pitch;
};

// Numbers that are sums of several terms have a plane for each: entry 0 of term t is at t * Own::numbers.
template <class E, int Side, int Depth, Major panel_major, int Terms = 1>
struct Panel {
  using Entry = E;
  using Own = PanelLayout<E, Side, Depth, panel_major>;
  static constexpr Major major = panel_major;
  static constexpr int terms = Terms;
  static constexpr int bytes = Terms * Own::numbers * static_cast<int>(sizeof(E));
  const E* entries;
  ORTHO_DEVICE const E* address(int term, int vector, int k) const {
    return entries + term * Own::numbers + vector * Own::vector_step + k * Own::depth_step;
  }
  ORTHO_DEVICE E at(int vector, int k) const { return *address(0, vector, k); }
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

// How a block goes through the rows of an operand's panels, chunk after chunk. A thread stays in its column
// of pieces of a row; its pointer steps.
template <class P, class S, int Piece>
struct RowWalk {
  using Own = typename P::Own;
  static constexpr bool along = P::major == Major::depth;
  static constexpr int pieces = Own::row / Piece, rows_at_once = tile_threads / pieces;
  static constexpr int rows_each = (Own::rows + rows_at_once - 1) / rows_at_once;
  static_assert(rows_at_once * pieces == tile_threads);

  const S* source;
  std::int64_t row_stride, stride, chunk_step;
  std::int32_t rows, numbers;  // that are left
  int first_row, number;

  template <int Depth>
  static ORTHO_DEVICE RowWalk from(const Operand<S>& operand, std::int32_t first, std::int32_t k) {
    RowWalk walk;
    walk.row_stride = along ? operand.vector_stride : operand.depth_stride;
    walk.stride = along ? operand.depth_stride : operand.vector_stride;
    walk.chunk_step = Depth * operand.depth_stride;
    walk.rows = along ? operand.vectors - first : operand.depth_end - k;
    walk.numbers = along ? operand.depth_end - k : operand.vectors - first;
    walk.first_row = thread_index() / pieces;
    walk.number = thread_index() % pieces * Piece;
    walk.source = operand.data + first * operand.vector_stride + k * operand.depth_stride +
                  walk.first_row * walk.row_stride + walk.number * walk.stride;
    return walk;
  }

  // Calls visit(valid, source, place): whether the row and the first number of its piece are there, where the
  // piece is in memory, and where in the panel, in numbers.
  template <class Visit>
  ORTHO_DEVICE void for_rows(const Visit& visit) const {
    const bool in_row = within(number, numbers);
    const S* from = source;
    ORTHO_UNROLL
    for (int r = 0; r < rows_each; ++r) {
      const int row = first_row + r * rows_at_once;
      if (Own::rows % rows_at_once == 0 || row < Own::rows)
        visit(in_row && within(row, rows), from, row * Own::pitch + number);
      from += rows_at_once * row_stride;
    }
  }

  template <int Depth>
  ORTHO_DEVICE void step() {
    source += chunk_step;
    (along ? numbers : rows) -= Depth;
  }
};

// An operand whose panels hold its numbers as they are stored, or converted to E.
template <class E, class S, int Side, int Depth, Major major>
class StoredOperand {
 public:
  using Panel = cuda::Panel<E, Side, Depth, major>;
  static constexpr bool through_registers = false;
  static constexpr float scale = 1;
  struct Staged {};

  ORTHO_DEVICE StoredOperand(const Operand<S>& operand, std::int32_t first, std::int32_t k)
      : aligned_(std::is_same_v<E, S> && is_aligned(operand, major)),
        wide_(Wide::template from<Depth>(operand, first, k)),
        narrow_(Narrow::template from<Depth>(operand, first, k)) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged&, E* panel) {
    if constexpr (std::is_same_v<E, S>) {
      if (aligned_) {
        wide_.for_rows([&](bool valid, const S* source, int place) {
          copy_async<16>(panel + place, source, valid);
        });
        wide_.template step<Depth>();
        return;
      }
    }
    narrow_.for_rows([&](bool valid, const S* source, int place) {
      if constexpr (std::is_same_v<E, S> && sizeof(E) >= 4) {
        copy_async<sizeof(E)>(panel + place, source, valid);
      } else {
        S stored{};
        if (valid) stored = *source;
        if constexpr (std::is_same_v<E, S>) {
          panel[place] = stored;
        } else {
          panel[place] = number_from<E>(stored);
        }
      }
    });
    narrow_.template step<Depth>();
  }
  ORTHO_DEVICE void write(const Staged&, E*) const {}
  ORTHO_DEVICE float factor(int) const { return 1; }

 private:
  using Wide = RowWalk<Panel, S, 16 / sizeof(S)>;
  using Narrow = RowWalk<Panel, S, 1>;
  bool aligned_;
  Wide wide_;
  Narrow narrow_;
};

}  // namespace ortho::cuda
