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

// What the product of the backward, in which nothing cancels, may be rounded to.
enum class Products { exact, bfloat16 };

// A matrix whose gradient has no data is passed over. Only float32 matrices are ever rounded, and only where
// the CPU is the faster for it.
template <class C>
void soft_orthogonality_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                                 const C* residuals, const std::vector<Gradient>& gradients,
                                 Products products, Workers& workers);

// Forward and backward in one: `values` gets the penalty of every matrix, its value or the root of that, and
// the gradients `scale` times the penalty's. Residuals of small orders never leave the cache.
template <class C>
void soft_orthogonality_value_and_grad(const std::vector<Matrix>& matrices, EntryWeights weights,
                                       bool squared, double scale, C* values,
                                       const std::vector<Gradient>& gradients, Products products,
                                       Workers& workers);

}  // namespace ortho
