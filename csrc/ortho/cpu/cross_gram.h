// The cross Gram G = A B^T of each pair of a list: a norm of G, and its gradients P B and P^T A with P =
// dL/dG.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../options.h"
#include "parallel.h"

namespace ortho {

// A and B have the same depth, in the same order, and one storage format.
struct Pair {
  Matrix a, b;
};

// C is the type of values and of what is kept: P of each pair, row after row, one pair after the other; null:
// keep nothing.
template <class C>
void cross_gram(const std::vector<Pair>& pairs, Norm norm, C* values, C* kept, Workers& workers);

// `a_gradients` and `b_gradients` have one each a pair; one that has no data is passed over. `precision` is
// as in soft_orthogonality_backward.
template <class C>
void cross_gram_backward(const C* factors, const std::vector<Pair>& pairs, const C* kept,
                         const std::vector<Gradient>& a_gradients, const std::vector<Gradient>& b_gradients,
                         Precision precision, Workers& workers);

}  // namespace ortho
