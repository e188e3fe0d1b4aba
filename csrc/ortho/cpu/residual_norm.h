// Norms of the residuals of a list of matrices. With K, half of the symmetric part of d norm / d Gram, their
// gradient is 4 g K W: what soft_orthogonality_backward makes of R. The vectors of a matrix, or the lines
// across them, may be scaled to length 1 first.
#pragma once

#include <vector>

#include "../matrix.h"
#include "../options.h"
#include "parallel.h"

namespace ortho {

// What of a matrix has length 1: nothing, its vectors, so that the Gram holds cosines, or the lines across
// its order, one at each depth. What is zero stays zero.
enum class Unit { none, vectors, lines };

// C is the type of values and residuals. `residuals` has room for the packed lower triangles; it is left with
// those of K if `keep`. Where lines are scaled, a multiple of I is taken away from K: their lengths have no
// derivative, and what remains has all its digits.
template <class C>
void residual_norm(const std::vector<Matrix>& matrices, Norm norm, const std::vector<Unit>& units,
                   EntryWeights weights, bool keep, C* values, C* residuals, Workers& workers);

// As soft_orthogonality_backward, from the triangles of K.
template <class C>
void residual_norm_backward(const C* factors, const std::vector<Matrix>& matrices,
                            const std::vector<Unit>& units, const C* residuals,
                            const std::vector<Gradient>& gradients, Precision precision, Workers& workers);

}  // namespace ortho
