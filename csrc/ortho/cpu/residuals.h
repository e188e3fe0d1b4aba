// The residuals R = Gram - I of a list of matrices: their lower triangles, and the sums of their squares.
#pragma once

#include <vector>

#include "../matrix.h"
#include "../options.h"
#include "kernels.h"
#include "parallel.h"

namespace ortho {

// C is the type of residuals. `residuals` gets the packed lower triangles of the weighted residuals, one
// matrix after the other; null: keep nothing. `forms` has one for each matrix: the Gram itself keeps the
// digits of short vectors.
template <class C>
std::vector<SquaredSums> residuals(const std::vector<Matrix>& matrices, const std::vector<GramForm>& forms,
                                   EntryWeights weights, C* residuals, Workers& workers);

}  // namespace ortho
