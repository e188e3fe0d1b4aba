// Norms of the residuals of a list of matrices. With K, half of the symmetric part of d norm / d Gram, their
// gradient is 4 g K W: what soft_orthogonality_backward makes of R.
#pragma once

#include <vector>

#include "../matrix.h"
#include "../options.h"
#include "parallel.h"

namespace ortho {

// C is the type of values and residuals. `residuals` has room for the packed lower triangles; it is left with
// those of K if `keep`. Of matrices that are `normalized`, the Gram holds the cosines between their vectors;
// a zero vector stays zero.
template <class C>
void residual_norm(const std::vector<Matrix>& matrices, Norm norm, const std::vector<bool>& normalized,
                   EntryWeights weights, bool keep, C* values, C* residuals, Workers& workers);

}  // namespace ortho
