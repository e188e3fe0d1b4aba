// Matrices whose lines across the order, one at each depth, are scaled to length 1.
#pragma once

#include <vector>

#include "../matrix.h"
#include "parallel.h"

namespace ortho {

// One over the length of each line of those matrices that are `wanted`, one matrix after the other: 0 of a
// zero line. C is the type of the arithmetic.
template <class C>
std::vector<double> inverse_line_lengths(const std::vector<Matrix>& matrices, const std::vector<bool>& wanted,
                                         Workers& workers);

// With x the scaled lines of a matrix and K its residual: 4 g K x, taken through the scaling. A matrix whose
// gradient has no data is passed over.
template <class C>
void scaled_lines_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                           const std::vector<Gradient>& gradients, Workers& workers);

}  // namespace ortho
