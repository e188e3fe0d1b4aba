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

// How the entries of a panel are arranged in shared memory. Rows are what is contiguous in the operand's
// memory. padded: row by row, so padded that the threads that read a fragment meet all banks. units: in
// columns of 16 bytes, which is how a warpgroup multiplies them (intrinsics.cuh), so padded that the threads
// that write one row or several meet all banks. dense: in columns of 16 bytes without padding.
enum class Arrangement { padded, units, dense };

template <class E, int Side, int Depth, Major major, Arrangement>
struct PanelLayout;

// All in numbers of E.
template <class E, int Side, int Depth, Major major>
struct PanelLayout<E, Side, Depth, major, Arrangement::padded> {
  static constexpr int row = major == Major::depth ? Depth : Side;
  static constexpr int rows = major == Major::depth ? Side : Depth;
  static constexpr int padding = major == Major::depth ? 16 / sizeof(E) : (sizeof(E) == 8 ? 4 : 8);
  static constexpr int row_step = row + padding;
  static constexpr int numbers = rows * row_step;
  static constexpr int vector_step = major == Major::depth ? row_step : 1;
  static constexpr int depth_step = major == Major::depth ? 1 : row_step;
  static ORTHO_DEVICE int place(int own_row, int number) { return own_row * row_step + number; }
};

template <class E, int Side, int Depth, Major major, int Padding>
struct UnitLayout {
  static constexpr int unit = 16 / sizeof(E);
  static constexpr int row = major == Major::depth ? Depth : Side;
  static constexpr int rows = major == Major::depth ? Side : Depth;
  static constexpr int row_step = unit;
  static constexpr int column_step = (rows + Padding) * unit;
  static constexpr int numbers = row / unit * column_step;
  // To the next eight vectors, and to the next eight of the depth.
  static constexpr int vectors_step = major == Major::depth ? 8 * unit : column_step;
  static constexpr int depth_step = major == Major::depth ? column_step : 8 * unit;
  static ORTHO_DEVICE int place(int own_row, int number) {
    return number / unit * column_step + own_row * unit + number % unit;
  }
};

// Of eight threads that write at once, some write to neighboring columns of one row, others to the next rows.
constexpr int unit_padding(int columns) { return columns < 8 ? 8 / columns : 1; }

template <class E, int Side, int Depth, Major major>
struct PanelLayout<E, Side, Depth, major, Arrangement::units>
    : UnitLayout<E, Side, Depth, major,
                 unit_padding((major == Major::depth ? Depth : Side) * static_cast<int>(sizeof(E)) / 16)> {};
template <class E, int Side, int Depth, Major major>
struct PanelLayout<E, Side, Depth, major, Arrangement::dense> : UnitLayout<E, Side, Depth, major, 0> {};

// Numbers that are sums of several terms have a plane for each: entry 0 of term t is at t * Own::numbers.
template <class E, int Side, int Depth, Major panel_major, int Terms = 1,
          Arrangement arrangement = Arrangement::padded>
struct Panel {
  using Entry = E;
  using Own = PanelLayout<E, Side, Depth, panel_major, arrangement>;
  static constexpr Major major = panel_major;
  static constexpr bool in_units = arrangement != Arrangement::padded;
  static constexpr int side = Side, depth = Depth, terms = Terms;
  static constexpr int bytes = Terms * Own::numbers * static_cast<int>(sizeof(E));
  const E* entries;
  ORTHO_DEVICE const E* address(int term, int vector, int k) const {
    constexpr bool along = panel_major == Major::depth;
    return entries + term * Own::numbers + Own::place(along ? vector : k, along ? k : vector);
  }
  ORTHO_DEVICE E at(int vector, int k) const { return *address(0, vector, k); }
};

// How an operand lies in memory. Aligned: 16 bytes at a time can be copied, since every row of a panel begins
// and ends at a multiple of 16 bytes.
template <Major operand_major, bool Aligned>
struct Access {
  static constexpr Major major = operand_major;
  static constexpr bool aligned = Aligned;
};

template <class S>
ORTHO_DEVICE bool is_aligned(const Operand<S>& operand, Major major) {
  const bool along = major == Major::depth;
  const std::int64_t inner = along ? operand.depth_stride : operand.vector_stride;
  const std::int64_t outer = along ? operand.vector_stride : operand.depth_stride;
  const std::int64_t numbers = along ? operand.depth_end : operand.vectors;
  return inner == 1 &&
         (reinterpret_cast<std::uintptr_t>(operand.data) | (outer | numbers) * sizeof(S)) % 16 == 0;
}

// Calls body(access) with that of the operand, or with the one that takes any alignment.
template <class S, class Body>
ORTHO_DEVICE void with_major(const Operand<S>& operand, const Body& body) {
  if (operand.depth_stride == 1) return body(Access<Major::depth, false>{});
  body(Access<Major::vectors, false>{});
}
template <class S, class Body>
ORTHO_DEVICE void with_access(const Operand<S>& operand, const Body& body) {
  const Major major = operand.depth_stride == 1 ? Major::depth : Major::vectors;
  if (!is_aligned(operand, major)) return with_major(operand, body);
  if (major == Major::depth) return body(Access<Major::depth, true>{});
  body(Access<Major::vectors, true>{});
}

// Operands of 16-bit terms: how their panels are arranged, and the depth of their chunks. Float32 numbers
// come through registers, which take fewer.
#ifdef ORTHO_WARPGROUPS
constexpr Arrangement half_arrangement = Arrangement::units;
template <class S>
constexpr int half_depth = sizeof(S) == 4 ? 32 : 64;
#else
constexpr Arrangement half_arrangement = Arrangement::padded;
template <class S>
constexpr int half_depth = sizeof(S) == 4 ? 16 : 32;
#endif

// The number of a thread among those that bring operands: all of a block, or its loaders (loaders.cuh).
ORTHO_DEVICE int bringing_thread() {
#ifdef ORTHO_LOADERS
  return computed_here(thread_index()) % tile_threads;
#else
  return computed_here(thread_index());
#endif
}

// How a block goes through the rows of an operand's panels, chunk after chunk, `Piece` numbers at a time. A
// thread stays in its column of pieces; its pointer steps.
template <class P, int Depth, class S, int Piece, bool Aligned>
class RowWalk {
  using Own = typename P::Own;
  static constexpr bool along = P::major == Major::depth;
  static constexpr int pieces = Own::row / Piece, rows_at_once = tile_threads / pieces;
  static_assert(rows_at_once * pieces == tile_threads);

 public:
  static constexpr int rows_each = (Own::rows + rows_at_once - 1) / rows_at_once;

  ORTHO_DEVICE RowWalk(const Operand<S>& operand, std::int32_t first, std::int32_t k) {
    const std::int64_t row_stride = along ? operand.vector_stride : operand.depth_stride;
    stride_ = along ? operand.depth_stride : operand.vector_stride;
    row_step_ = rows_at_once * row_stride;
    chunk_step_ = Depth * operand.depth_stride;
    const int thread = bringing_thread();
    first_row_ = thread / pieces;
    const int number = thread % pieces * Piece;
    place_ = Own::place(first_row_, number);
    source_ = operand.data + first * operand.vector_stride + k * operand.depth_stride +
              first_row_ * row_stride + number * stride_;
    rows_ = (along ? operand.vectors - first : operand.depth_end - k) - first_row_;
    numbers_ = (along ? operand.depth_end - k : operand.vectors - first) - number;
  }

  // Calls visit(r, valid, source, place) for this thread's pieces of the next chunk: whether there is one,
  // where it is in memory, and where in the panel, in numbers.
  template <class Visit>
  ORTHO_DEVICE void for_pieces(const Visit& visit) {
    const S* from = source_;
    ORTHO_UNROLL
    for (int r = 0; r < rows_each; ++r) {
      if (is_row(r)) visit(r, within(0, numbers_) && within(r * rows_at_once, rows_), from, place(r));
      from += row_step_;
    }
    source_ += Aligned ? (along ? Depth : Depth / rows_at_once * row_step_) : chunk_step_;
    (along ? numbers_ : rows_) -= Depth;
  }

  // Of a piece of for_pieces(); aligned ones have all their numbers.
  ORTHO_DEVICE bool has_number(int i) const { return within(i, numbers_); }
  ORTHO_DEVICE std::int64_t stride() const { return Aligned ? 1 : stride_; }

  ORTHO_DEVICE bool is_row(int r) const {
    return Own::rows % rows_at_once == 0 || first_row_ + r * rows_at_once < Own::rows;
  }
  ORTHO_DEVICE int place(int r) const { return place_ + r * rows_at_once * Own::row_step; }

 private:
  static_assert(along || !Aligned || Depth % rows_at_once == 0 || rows_at_once % Depth == 0);
  const S* source_;
  std::int64_t row_step_, stride_, chunk_step_;
  std::int32_t rows_, numbers_;  // that are left from this thread's first on
  int first_row_, place_;
};

// An operand whose panels hold its numbers as they are stored, or converted to E.
template <class E, class S, int Side, int Depth, class Reading>
class StoredOperand {
  static constexpr bool in_pieces = Reading::aligned && std::is_same_v<E, S>;

 public:
  using Panel = cuda::Panel<E, Side, Depth, Reading::major>;
  static constexpr bool through_registers = false;
  struct Staged {};

  ORTHO_DEVICE StoredOperand(const Operand<S>& operand, std::int32_t first, std::int32_t k)
      : walk_(operand, first, k) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged&, E* panel) {
    walk_.for_pieces([&](int, bool valid, const S* source, int place) {
      if constexpr (std::is_same_v<E, S> && (in_pieces || sizeof(E) >= 4)) {
        copy_async<in_pieces ? 16 : sizeof(E)>(panel + place, source, valid);
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
  }
  ORTHO_DEVICE void write(const Staged&, E*) const {}
  ORTHO_DEVICE float factor(int) const { return 1; }

 private:
  RowWalk<Panel, Depth, S, in_pieces ? 16 / sizeof(S) : 1, in_pieces> walk_;
};

}  // namespace ortho::cuda
