// Soft orthogonality of a list of matrices: the weighted sum of squares of R = Gram - I, and its gradient 4 g
// R W.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.h"
#include "parallel.h"

namespace ortho {

// Up to this order float matrices are computed in double: so few entries don't average the rounding errors of
// float sums out, and near orthogonality, where R is a difference of nearly equal numbers, those would show.
constexpr std::int64_t small_order = 64;

struct EntryWeights {
  double diagonal = 1, off_diagonal = 1;
};

// C is the type of values and residuals. `residuals` holds the packed lower triangles of the weighted
// residuals, one matrix after the other; null: keep nothing.
template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workers& workers);

// A matrix whose gradient has no data is passed over.
template <class C>
void soft_orthogonality_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                                 const C* residuals, const std::vector<Gradient>& gradients,
                                 Workers& workers);

}  // namespace ortho
