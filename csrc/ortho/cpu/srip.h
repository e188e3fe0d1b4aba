// SRIP of a list of matrices: the spectral norm of R = Gram - I as power iteration estimates it, and its
// gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../offsets.h"
#include "../options.h"
#include "parallel.h"

namespace ortho {

// `start` holds one vector a matrix, whose entries the caller numbers by the matrix's permutation. `vectors`
// gets pairs x 2 x order numbers a matrix, for the last application first: what multiplies x^T W in the
// gradient, and x; null: keep nothing. C is the type of all of them.
template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<ColumnPermutation>& permutations,
          const C* start, SripOptions options, C* values, C* vectors, Workers& workers);

// One pass by itself: products = G x for each matrix's vector x, where G is the Gram without the identity.
template <class C>
void gram_times_vectors(const std::vector<Matrix>& matrices, const C* vectors, double* products,
                        Workers& workers);

// gradient = factor * sum over pairs (p, x) of (p x^T + x p^T) W. A matrix whose gradient has no data is
// passed over.
template <class C>
void srip_backward(const C* factors, const std::vector<Matrix>& matrices,
                   const std::vector<ColumnPermutation>& permutations, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, Workers& workers);

}  // namespace ortho
