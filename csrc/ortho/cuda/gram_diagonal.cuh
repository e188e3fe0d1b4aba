// The diagonal of a Gram, the squared lengths of vectors, with twice float's digits.
//
// Near orthogonality it is nearly one and R nearly zero. Its sums only grow, so tensor cores that cut digits
// off when they add make all of it too small, and a float sum of about one rounds to 6e-8. Entries beside it
// stay small on the way.
#pragma once

#include "tile_product.cuh"
#include "two_float.cuh"

namespace ortho::cuda {

// By the threads of a tile on the diagonal that are free to do so: each has a vector, or two that are 32 apart.
template <class Places>
struct SquaredLengths {
  static constexpr int of_thread = Places::vectors_of_free;
  TwoFloat sums[of_thread];

  static ORTHO_DEVICE int vector(int i) {
    return Places::vector_of_free(computed_here(thread_index())) + i * warp_size;
  }

  template <int Depth, class Panel>
  ORTHO_DEVICE void add_chunk(const Panel& panel) {
    constexpr int run = 4;  // squares that are summed as floats
    // Lanes that would meet at a bank of the shared memory begin at neighbors in the depth.
    constexpr int turn =
        Panel::major == Major::depth ? static_cast<int>(sizeof(float) / sizeof(typename Panel::Entry)) : 0;
    const int first = thread_index() % warp_size / 8 * turn;
    ORTHO_UNROLL
    for (int i = 0; i < of_thread; ++i) {
      ORTHO_UNROLL_BY(1)  // the warps that multiply need the registers
      for (int begin = 0; begin < Depth; begin += run) {
        float sum = 0;
        ORTHO_UNROLL
        for (int k = begin; k < begin + run; ++k) {
          float entry = 0;
          ORTHO_UNROLL
          for (int t = Panel::terms - 1; t >= 0; --t)
            entry += number_from<float>(*panel.address(t, vector(i), (first + k) % Depth));
          sum = multiply_add_rounded(entry, entry, sum);
        }
        sums[i] += sum;
      }
    }
  }

  // By a power of two.
  ORTHO_DEVICE void multiply(float factor) {
    ORTHO_UNROLL
    for (int i = 0; i < of_thread; ++i) sums[i] = {sums[i].high * factor, sums[i].low * factor};
  }
};

}  // namespace ortho::cuda
