// One square tile of a product A B^T by a block of eight warps. Chunks of the depth go through a pipeline in
// shared memory; tensor cores multiply them, for a warp at a time or, where there are such, for warpgroups.
//
// Tensor cores cut digits off when they add, and float sums lose digits as they grow: the products of each
// chunk, or of less, are summed apart and then added to the sums of the tile.
#pragma once

#include "staging.cuh"
#include "terms.cuh"

namespace ortho::cuda {

// The sums of a thread in a tile of that side: of blocks of 16 x 8 entries, four each.
template <class Sum, int Side>
using Blocks = Sum[Side / 32][Side / 32][4];

// Which entries of a tile a thread's warp has the sums of: block (i, j) of Blocks is block_row(i) below
// row(thread) and block_column(i, j) beside column(thread).
//
// Two warps below each other, four side by side.
template <int Side>
struct WarpGrid {
  static constexpr int rows = Side / 2, columns = Side / 4;
  static ORTHO_DEVICE int row(int thread) { return thread / warp_size / 4 * rows; }
  static ORTHO_DEVICE int column(int thread) { return thread / warp_size % 4 * columns; }
  static ORTHO_DEVICE int block_row(int i) { return 16 * i; }
  static ORTHO_DEVICE int block_column(int, int j) { return 8 * j; }
  // Of a tile with entries in so many of its rows and columns: those columns of the warp that are needed.
  static ORTHO_DEVICE int columns_needed(int thread, int rows_there, int columns_there) {
    return row(thread) < rows_there && column(thread) < columns_there ? columns : 0;
  }
  // In a tile on the diagonal two warps have only entries above it, which are not needed. They look at the
  // tile's vectors: each thread of theirs at one, and at another `warp_size` behind.
  static constexpr int looked_at = 2, lookers = 1;
  static ORTHO_DEVICE bool looks(int thread) { return row(thread) + rows <= column(thread); }
  static ORTHO_DEVICE int vector_looked_at(int thread) {
    return (thread / warp_size - 2) * looked_at * warp_size + thread % warp_size;
  }
  static ORTHO_DEVICE int columns_needed_on_diagonal(int thread, int rows_there) {
    return looks(thread) ? 0 : columns_needed(thread, rows_there, rows_there);
  }
};

// Eight warps below each other. In a tile on the diagonal the first four, a warpgroup, need half of their
// columns. All threads look at its vectors: two at each, at half of the depth.
struct WarpRows {
  static constexpr int rows = 16, group_rows = 64, group_threads = 4 * warp_size;
  static ORTHO_DEVICE int row(int thread) { return thread / warp_size * rows; }
  static ORTHO_DEVICE int column(int) { return 0; }
  static ORTHO_DEVICE int group_row(int thread) { return thread / group_threads * group_rows; }
  static ORTHO_DEVICE int block_row(int) { return 0; }
  static ORTHO_DEVICE int block_column(int i, int j) { return 32 * i + 8 * j; }
  static ORTHO_DEVICE int columns_needed(int thread, int rows_there, int columns_there) {
    return group_row(thread) < rows_there ? columns_there : 0;
  }
  static constexpr int looked_at = 1, lookers = 2;
  static ORTHO_DEVICE bool looks(int) { return true; }
  static ORTHO_DEVICE int vector_looked_at(int thread) { return thread % (tile_threads / lookers); }
  static ORTHO_DEVICE int columns_needed_on_diagonal(int thread, int rows_there) {
    const int below = group_row(thread) + group_rows;
    return columns_needed(thread, rows_there, below < rows_there ? below : rows_there);
  }
};

// Where a thread's row of its warp's first 16 vectors and 16 of the depth is in either panel, for
// load_blocks(): a left operand is four blocks of one register each, a right one two of two registers.
template <class A, class B>
struct WarpPlace {
  using Places = WarpGrid<A::side>;
  int left, right;

  ORTHO_DEVICE WarpPlace() {
    const int thread = computed_here(thread_index());
    const int block = thread % warp_size / 8, row = thread % 8;
    left = place_in<A>(Places::row(thread) + block % 2 * 8, block / 2 * 8, row);
    right = place_in<B>(Places::column(thread) + block / 2 * 8, block % 2 * 8, row);
  }

 private:
  template <class P>
  static ORTHO_DEVICE int place_in(int vector, int k, int row) {
    constexpr bool along = P::major == Major::depth;
    return (vector + (along ? row : 0)) * P::Own::vector_step + (k + (along ? 0 : row)) * P::Own::depth_step;
  }
};

// ---- how the numbers of two panels are multiplied --------------------------------------------------------
//
// `side` is that of a tile, `depth` that of a chunk, `run` that of the sums that are formed apart.
// add_chunk() adds factor x the products of two panels to the sums of this thread's warp, in so many of its
// columns, and calls meanwhile() once, at best while tensor cores work.

// Calls visit(p, q) for the products of terms, those of the last terms first: they are the smallest. Products
// below the digits of the last term are left out, so two by two terms need three products, three by three
// six.
template <int LeftTerms, int RightTerms, class Visit>
ORTHO_DEVICE void for_term_pairs(const Visit& visit) {
  ORTHO_UNROLL
  for (int places = (LeftTerms > RightTerms ? LeftTerms : RightTerms) - 1; places >= 0; --places) {
    ORTHO_UNROLL
    for (int p = 0; p < LeftTerms; ++p) {
      if (places - p >= 0 && places - p < RightTerms) visit(p, places - p);
    }
  }
}

// Products of 16-bit terms.
template <class Half, int LeftTerms, int RightTerms, int Depth>
struct TermProducts {
  using Sum = float;
  using Places = WarpGrid<wide_tile>;
  static constexpr int side = wide_tile, depth = Depth, step = 16;
  static constexpr int run = LeftTerms > 1 && RightTerms > 1 ? step : depth;
  template <class A, class B>
  using Place = WarpPlace<A, B>;
  static constexpr bool is_asynchronous = false;
  static ORTHO_DEVICE void before_barrier() {}

  template <class A, class B>
  static ORTHO_DEVICE void add_chunk(const A& a, const B& b, const WarpPlace<A, B>& place, float factor,
                                     Blocks<Sum, side>& sums) {
    ORTHO_UNROLL
    for (int k = 0; k < depth; k += run) add_run(a, b, place, k, factor, sums);
  }

 private:
  template <class A, class B>
  static ORTHO_DEVICE void add_run(const A& a, const B& b, const WarpPlace<A, B>& place, int k, float factor,
                                   Blocks<Sum, side>& sums) {
    constexpr int steps = run / step, rows = side / 32, columns = side / 32;
    std::uint32_t right[steps][RightTerms][columns / 2][4];
    ORTHO_UNROLL
    for (int s = 0; s < steps; ++s) {
      ORTHO_UNROLL
      for (int q = 0; q < RightTerms; ++q) {
        ORTHO_UNROLL
        for (int j = 0; j < columns / 2; ++j)
          load_blocks<B::major == Major::vectors>(b.address(q, 16 * j, k + s * step) + place.right,
                                                  right[s][q][j]);
      }
    }
    // A row of blocks at a time, so that few of the sums that are formed apart are in registers.
    ORTHO_UNROLL
    for (int i = 0; i < rows; ++i) {
      float part[columns][4] = {};
      ORTHO_UNROLL
      for (int s = 0; s < steps; ++s) {
        std::uint32_t left[LeftTerms][4];
        ORTHO_UNROLL
        for (int p = 0; p < LeftTerms; ++p)
          load_blocks<A::major == Major::vectors>(a.address(p, 16 * i, k + s * step) + place.left, left[p]);
        multiply(left, right[s], part);
      }
      ORTHO_UNROLL
      for (int j = 0; j < columns; ++j) {
        ORTHO_UNROLL
        for (int e = 0; e < 4; ++e) sums[i][j][e] += factor * part[j][e];
      }
    }
  }

  template <int Columns>
  static ORTHO_DEVICE void multiply(const std::uint32_t (&left)[LeftTerms][4],
                                    const std::uint32_t (&right)[RightTerms][Columns / 2][4],
                                    float (&part)[Columns][4]) {
    for_term_pairs<LeftTerms, RightTerms>([&](int p, int q) {
      ORTHO_UNROLL
      for (int j = 0; j < Columns; ++j) {
        const std::uint32_t (&two)[4] = right[q][j / 2];
        mma_16bit<Half>(part[j], left[p], {two[j % 2 * 2], two[j % 2 * 2 + 1]});
      }
    });
  }
};

// All digits of float32 numbers, whatever their size.
using ExactProducts = TermProducts<bfloat16, 3, 3, 16>;

struct Fp64 {
  using Sum = double;
  using Places = WarpGrid<narrow_tile>;
  static constexpr int side = narrow_tile, depth = 8;
  template <class A, class B>
  struct Place {};
  static constexpr bool is_asynchronous = false;
  static ORTHO_DEVICE void before_barrier() {}

  template <class A, class B>
  static ORTHO_DEVICE void add_chunk(const A& a, const B& b, const Place<A, B>&, float,
                                     Blocks<Sum, side>& sums) {
    constexpr int step = 4;
    const int g = thread_index() % warp_size / 4, t = thread_index() % 4;
    ORTHO_UNROLL
    for (int k = 0; k < depth; k += step) {
      ORTHO_UNROLL
      for (int i = 0; i < side / 32; ++i) {
        const int row = Places::row(thread_index()) + 16 * i + g;
        const double left[2] = {a.at(row, k + t), a.at(row + 8, k + t)};
        ORTHO_UNROLL
        for (int j = 0; j < side / 32; ++j)
          mma_fp64(sums[i][j], left, b.at(Places::column(thread_index()) + 8 * j + g, k + t));
      }
    }
  }
};

#ifdef ORTHO_WARPGROUPS

// As TermProducts, by two warpgroups with 64 rows each; the panels are in units.
template <class Half, int LeftTerms, int RightTerms, int Depth>
struct WarpgroupProducts {
  using Sum = float;
  using Places = WarpRows;
  static constexpr int side = wide_tile, depth = Depth, step = 16;
  static constexpr int run = LeftTerms > 1 && RightTerms > 1 ? step : depth;
  template <class A, class B>
  struct Place {};
  static constexpr bool is_asynchronous = true;  // products run on while threads do something else
  static ORTHO_DEVICE void before_barrier() { show_to_tensor_cores(); }

  template <class A, class B, class Meanwhile>
  static ORTHO_DEVICE void add_chunk(const A& a, const B& b, int columns, float factor,
                                     Blocks<Sum, side>& sums, const Meanwhile& meanwhile) {
    auto& flat = reinterpret_cast<float (&)[side / 2]>(sums);
    if (columns > side / 2) {
      add_runs<side / 2>(a, b, factor, flat, meanwhile);
    } else {
      add_runs<side / 4>(a, b, factor, flat, meanwhile);
    }
  }

 private:
  // Of a thread `Count` sums: of as many columns, two each.
  template <int Count, class A, class B, class Meanwhile>
  static ORTHO_DEVICE void add_runs(const A& a, const B& b, float factor, float (&sums)[side / 2],
                                    const Meanwhile& meanwhile) {
    ORTHO_UNROLL
    for (int k = 0; k < depth; k += run) {
      float part[Count];
      begin_run(a, b, k, part);
      if (k + run == depth) meanwhile();
      await_products(part);
      ORTHO_UNROLL
      for (int s = 0; s < Count; ++s) sums[s] += factor * part[s];
    }
  }

  template <int Count, class A, class B>
  static ORTHO_DEVICE void begin_run(const A& a, const B& b, int begin, float (&part)[Count]) {
    const PanelPlace left = place_of(a, WarpRows::group_row(computed_here(thread_index()))),
                     right = place_of(b, 0);
    bool adds = false;
    begin_products();
    ORTHO_UNROLL
    for (int k = begin; k < begin + run; k += step) {
      for_term_pairs<LeftTerms, RightTerms>([&](int p, int q) {
        begin_product<Half, A::major == Major::vectors, B::major == Major::vectors>(
            part, left.behind(bytes_to<A>(p, k)), right.behind(bytes_to<B>(q, k)), adds);
        adds = true;
      });
    }
    commit_products();
  }

  template <class P>
  static ORTHO_DEVICE PanelPlace place_of(const P& panel, int vector) {
    constexpr int bytes = sizeof(typename P::Entry);
    return {panel.address(0, vector, 0), P::Own::vectors_step * bytes, P::Own::depth_step * bytes};
  }
  // Terms have a plane each, or blocks of them take turns along the depth.
  template <class P>
  static constexpr int bytes_to(int term, int k) {
    constexpr int bytes = sizeof(typename P::Entry), block = plane_block;
    if (P::terms > 1) return (term * P::Own::numbers + k / 8 * P::Own::depth_step) * bytes;
    constexpr int terms = P::depth / depth;
    return (k / block * block * terms + term * block + k % block) / 8 * P::Own::depth_step * bytes;
  }
};

#endif

// What multiplies 16-bit terms, as operands of half_arrangement give them.
#ifdef ORTHO_WARPGROUPS
using HalfPlaces = WarpRows;
template <class Half, int LeftTerms, int RightTerms, int Depth>
using HalfProducts = WarpgroupProducts<Half, LeftTerms, RightTerms, Depth>;
#else
using HalfPlaces = WarpGrid<wide_tile>;
template <class Half, int LeftTerms, int RightTerms, int Depth>
using HalfProducts = TermProducts<Half, LeftTerms, RightTerms, Depth>;
#endif

// ---- the tile -------------------------------------------------------------------------------------------

// Calls visit(i, j, e) for the indices of Blocks.
template <int Side, class Visit>
ORTHO_DEVICE void for_indices(const Visit& visit) {
  ORTHO_UNROLL
  for (int i = 0; i < Side / 32; ++i) {
    ORTHO_UNROLL
    for (int j = 0; j < Side / 32; ++j) {
      ORTHO_UNROLL
      for (int e = 0; e < 4; ++e) visit(i, j, e);
    }
  }
}

// Calls visit(row, for_columns) for the rows of this thread's sums, and for_columns(visit) calls
// visit(column, first, second) for the sums in it, two neighbors at a time; rows and columns within the tile.
template <class Places, class Sum, int N, class Visit>
ORTHO_DEVICE void for_rows(Sum (&sums)[N][N][4], const Visit& visit) {
  const int thread = computed_here(thread_index());
  const int row = Places::row(thread) + thread % warp_size / 4;
  const int column = Places::column(thread) + thread % 4 * 2;
  ORTHO_UNROLL
  for (int i = 0; i < N; ++i) {
    ORTHO_UNROLL
    for (int e = 0; e < 4; e += 2) {
      visit(row + Places::block_row(i) + 4 * e, [&](const auto& visit_pair) {
        ORTHO_UNROLL
        for (int j = 0; j < N; ++j)
          visit_pair(column + Places::block_column(i, j), sums[i][j][e], sums[i][j][e + 1]);
      });
    }
  }
}

// Calls visit(row, column, first, second) likewise.
template <class Places, class Sum, int N, class Visit>
ORTHO_DEVICE void for_pairs(Sum (&sums)[N][N][4], const Visit& visit) {
  for_rows<Places>(sums, [&](int row, const auto& for_columns) {
    for_columns([&](int column, Sum& first, Sum& second) { visit(row, column, first, second); });
  });
}

// Calls visit(row, column, sum) likewise.
template <class Places, class Sum, int N, class Visit>
ORTHO_DEVICE void for_sums(Sum (&sums)[N][N][4], const Visit& visit) {
  for_pairs<Places>(sums, [&](int row, int column, Sum& first, Sum& second) {
    visit(row, column, first);
    visit(row, column + 1, second);
  });
}

template <class Sum, int N>
ORTHO_DEVICE void clear(Sum (&sums)[N][N][4]) {
  for_indices<32 * N>([&](int i, int j, int e) { sums[i][j][e] = 0; });
}

constexpr std::size_t tile_shared_bytes = 100'352;

// Stages of the pipeline: numbers that come through registers are one chunk ahead. Others are as far ahead as
// the memory allows.
template <class Left, class Right>
constexpr int stages_of =
    Left::through_registers || Right::through_registers
        ? 2
        : static_cast<int>(tile_shared_bytes) / (Left::Panel::bytes + Right::Panel::bytes);

// sums = A B^T for `chunks` chunks. Of Left and Right, fetch() begins to bring the next chunk, write() brings
// what came to registers, and factor(chunk) is that of the chunk's products. `same`: both are the same
// vectors, and the left panel serves as the right one. Of its warp's columns a thread needs so many: the sums
// of others, and all sums of a warp that needs none, are zero. beside(panel) is called with each chunk of the
// left operand.
template <class Products, class Left, class Right, class Beside, class Sum = typename Products::Sum>
ORTHO_DEVICE void tile_product(Left& left, Right& right, int chunks, bool same, int columns,
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

template <class Sum, int N>
ORTHO_DEVICE void multiply(Sum (&sums)[N][N][4], Sum factor) {
  for_indices<32 * N>([&](int i, int j, int e) { sums[i][j][e] *= factor; });
}

}  // namespace ortho::cuda
