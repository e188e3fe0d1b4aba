// The options of the penalties, the same on a CPU and on a GPU.
#pragma once

#include <cstdint>

namespace ortho {

// Up to this order float matrices are computed in double. So few entries don't average out the rounding
// errors of float sums, which show near orthogonality, where R is a difference of nearly equal numbers.
constexpr std::int64_t small_order = 64;

// Of soft orthogonality: the factors of the squares of R's entries.
struct EntryWeights {
  double diagonal = 1, off_diagonal = 1;
};

// How R is measured, with w the weight of an entry: sum w R_ij^2, sum w |R_ij|, sum_i sqrt(sum_j w R_ij^2),
// max w |R_ij|.
enum class Norm : std::int32_t { fro, l1, l21, max };

// torch.get_float32_matmul_precision(): how far the backward product of float32 weights may be rounded.
// Nothing cancels in that product where the order is at most the depth.
enum class Precision : std::int32_t { highest, high, medium };

struct SripOptions {
  std::int64_t iterations = 2;  // applications of R
  bool through = true;          // differentiate through all of them; else the vectors count as constants
};

// A pair is what one application of R contributes to the gradient: two vectors.
constexpr std::int64_t pairs_of(const SripOptions& options) {
  return options.through ? options.iterations : 1;
}

}  // namespace ortho
