// How the numbers of two panels are multiplied: by tensor cores, for a warp at a time or, where there are
// such, for warpgroups.
//
// `side` is that of a tile, `depth` that of a chunk, `run` that of the sums that are formed apart.
// add_chunk() adds factor x the products of two panels to the sums of this thread's warp. Where products run
// on by themselves it also takes how many of the warp's columns are needed, and calls meanwhile() while they
// run.
#pragma once

#include "tile_places.cuh"

namespace ortho::cuda {

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
    if (columns > side / 2) {
      add_columns<side>(a, b, factor, sums, meanwhile);
    } else {
      add_columns<side / 2>(a, b, factor, sums, meanwhile);
    }
  }

  // Of so many columns: all, or the first half.
  template <int Columns, class A, class B, class Meanwhile>
  static ORTHO_DEVICE void add_columns(const A& a, const B& b, float factor, Blocks<Sum, side>& sums,
                                       const Meanwhile& meanwhile) {
    constexpr int count = Columns / 2;  // of a thread's sums
    auto& flat = reinterpret_cast<float (&)[side / 2]>(sums);
    ORTHO_UNROLL
    for (int k = 0; k < depth; k += run) {
      float part[count];
      begin_run(a, b, k, part);
      if (k + run == depth) meanwhile();
      await_products(part);
      ORTHO_UNROLL
      for (int s = 0; s < count; ++s) flat[s] += factor * part[s];
    }
  }

 private:
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

}  // namespace ortho::cuda
