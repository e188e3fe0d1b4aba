// Matrices whose lines across the order, one at each depth, are scaled to length 1, and the way back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "../matrix.h"
#include "parallel.h"

namespace ortho {

// A copy, of numbers of C, of those matrices that are `wanted`.
template <class C>
class ScaledLines {
 public:
  ScaledLines(const std::vector<Matrix>& matrices, const std::vector<bool>& wanted, Workers& workers);

  // All matrices, with the copies in their places.
  const std::vector<Matrix>& matrices() const { return matrices_; }

 private:
  std::vector<Matrix> matrices_;
  std::unique_ptr<C[]> lines_;
};

// With x the scaled lines of a matrix and K its residual: 4 g K x, taken through the scaling. A matrix whose
// gradient has no data is passed over.
template <class C>
void scaled_lines_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                           const std::vector<Gradient>& gradients, Workers& workers);

}  // namespace ortho
