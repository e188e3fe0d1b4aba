// Soft orthogonality of a list of matrices: the weighted sum of squares of R = Gram - I, and its gradient
// 4 g R W.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../options.h"
#include "parallel.h"

namespace ortho {

// C is the type of values and residuals. `residuals` holds the packed lower triangles of the weighted
// residuals, one matrix after the other; null: keep nothing.
template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workers& workers);

// A matrix whose gradient has no data is passed over. Only `medium` rounds, to bfloat16, where this CPU has
// dot products of it.
template <class C>
void soft_orthogonality_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                                 const std::vector<Gradient>& gradients, Precision precision,
                                 Workers& workers);

}  // namespace ortho
