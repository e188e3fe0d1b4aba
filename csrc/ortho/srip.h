// SRIP of a list of matrices: the spectral norm of R = Gram - I as power iteration estimates it, and its
// gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.h"
#include "parallel.h"

namespace ortho {

struct SripOptions {
  std::int64_t iterations = 2;  // applications of R
  bool through = true;          // differentiate through all of them; else the vectors count as constants
};

constexpr std::int64_t pairs_of(const SripOptions& options) {
  return options.through ? options.iterations : 1;
}

// How a caller numbers the entries of a vector where it is not as the matrix does: the caller's index of each
// entry of the matrix. Empty: both the same.
using EntryOrder = std::vector<std::int64_t>;

// `start` holds one vector a matrix. `vectors` gets pairs x 2 x order numbers a matrix, for the last
// application first: what multiplies x^T W in the gradient, and x; null: keep nothing. C is the type of all
// of them.
template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<EntryOrder>& entry_orders, const C* start,
          SripOptions options, C* values, C* vectors, Workers& workers);

// gradient = g * sum over pairs (p, x) of (p x^T + x p^T) W. A matrix whose gradient has no data is passed
// over.
template <class C>
void srip_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                   const std::vector<EntryOrder>& entry_orders, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, Workers& workers);

// Forward and backward in one, a matrix at a time while it is in the cache: `values` gets the penalty of
// every matrix, its value or the square of that, `last` the normalised vectors that the iteration ends with
// (zero where R is zero), numbered as `start`, and the gradients `scale` times the penalty's.
template <class C>
void srip_value_and_grad(const std::vector<Matrix>& matrices, const std::vector<EntryOrder>& entry_orders,
                         const C* start, SripOptions options, bool squared, double scale, C* values, C* last,
                         const std::vector<Gradient>& gradients, Workers& workers);

}  // namespace ortho
