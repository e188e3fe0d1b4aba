// The diagonal of a Gram, the squared lengths of vectors, with twice float's digits.
//
// Near orthogonality it is nearly one and R nearly zero. Its sums only grow, so tensor cores that cut digits
// off when they add make all of it too small, and a float sum of about one rounds to 6e-8. Entries beside it
// stay small on the way.
#pragma once

#include "tile_places.cuh"
#include "two_float.cuh"

namespace ortho::cuda {

// By the threads that look at the vectors of a tile on the diagonal (Places).
template <class Places>
struct SquaredLengths {
  static constexpr int of_thread = Places::looked_at;
  TwoFloat sums[of_thread];

  static ORTHO_DEVICE int vector(int i) {
    return Places::vector_looked_at(computed_here(thread_index())) + i * warp_size;
  }
  // Whether a thread has sums of the whole depth, after gather().
  static ORTHO_DEVICE bool has_sums(int thread) {
    return Places::looks(thread) && thread < tile_threads / Places::lookers;
  }

  template <int Depth, class Panel>
  ORTHO_DEVICE void add_chunk(const Panel& panel) {
    constexpr int own = Depth / Places::lookers;
    const int begin = Places::lookers == 1 ? 0 : thread_index() * Places::lookers / tile_threads * own;
    if constexpr (Panel::in_units && Panel::major == Major::depth) {
      add_units<own>(panel, begin);
    } else {
      add_numbers<own>(panel, begin);
    }
  }

  // Sums over the threads that look at one vector; uses the first of the shared memory.
  ORTHO_DEVICE void gather() {
    if constexpr (Places::lookers == 2) {
      auto* const others = reinterpret_cast<TwoFloat*>(shared_memory());
      const int thread = thread_index();
      if (!has_sums(thread)) others[vector(0)] = sums[0];
      block_barrier();
      if (has_sums(thread)) sums[0] += others[vector(0)];
      block_barrier();  // the memory may be used again
    }
  }

  // By a power of two.
  ORTHO_DEVICE void multiply(float factor) {
    ORTHO_UNROLL
    for (int i = 0; i < of_thread; ++i) sums[i] = {sums[i].high * factor, sums[i].low * factor};
  }

 private:
  static constexpr int run = 4;  // squares that are summed as floats

  template <int Count, class Panel>
  ORTHO_DEVICE void add_units(const Panel& panel, int begin) {
    using Entry = typename Panel::Entry;
    constexpr int unit = Panel::Own::unit;
    struct alignas(16) Unit {
      Entry entries[unit];
    };
    ORTHO_UNROLL_BY(1)  // the products need the registers
    for (int k = begin; k < begin + Count; k += unit) {
      Unit terms[Panel::terms];
      ORTHO_UNROLL
      for (int t = 0; t < Panel::terms; ++t)
        terms[t] = *reinterpret_cast<const Unit*>(panel.address(t, vector(0), k));
      ORTHO_UNROLL
      for (int first = 0; first < unit; first += run) {
        float sum = 0;
        ORTHO_UNROLL
        for (int e = first; e < first + run; ++e) {
          float entry = 0;
          ORTHO_UNROLL
          for (int t = Panel::terms - 1; t >= 0; --t) entry += number_from<float>(terms[t].entries[e]);
          sum = multiply_add_rounded(entry, entry, sum);
        }
        sums[0] += sum;
      }
    }
  }

  template <int Count, class Panel>
  ORTHO_DEVICE void add_numbers(const Panel& panel, int begin) {
    // Lanes that would meet at a bank of the shared memory begin at neighbors in the depth.
    constexpr int turn =
        Panel::major == Major::depth ? static_cast<int>(sizeof(float) / sizeof(typename Panel::Entry)) : 0;
    const int first = thread_index() % warp_size / 8 * turn;
    ORTHO_UNROLL
    for (int i = 0; i < of_thread; ++i) {
      ORTHO_UNROLL_BY(1)  // the products need the registers
      for (int k = first; k < first + Count; k += run) {
        float sum = 0;
        ORTHO_UNROLL
        for (int n = 0; n < run; ++n) {
          float entry = 0;
          ORTHO_UNROLL
          for (int t = Panel::terms - 1; t >= 0; --t)
            entry += number_from<float>(*panel.address(t, vector(i), begin + (k + n) % Count));
          sum = multiply_add_rounded(entry, entry, sum);
        }
        sums[i] += sum;
      }
    }
  }
};

}  // namespace ortho::cuda
