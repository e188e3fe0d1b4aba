// ||Conv(K, K) - I||_F^2 of a list of convolutions, and its gradient.
#pragma once

#include <cstdint>
#include <vector>

#include "../convolution.h"
#include "parallel.h"

namespace ortho {

// Of the convolution of a kernel with itself: (y, x) each.
struct ConvolutionOptions {
  std::int64_t stride[2], padding[2];
  std::int64_t identity[2];  // the place of the output that is held against the identity
};

// Those shifts at which two filters overlap, and that which is held against the identity; the zero shift
// comes first.
std::vector<Shift> shifts_of(const Convolution& kernel, const ConvolutionOptions& options);

// How many numbers the residuals of all these shifts take.
std::int64_t residual_size(const Convolution& kernel, const std::vector<Shift>& shifts);

// C is the type of values and residuals. `residuals` holds those of all shifts, one convolution after the
// other; null: keep nothing.
template <class C>
void convolution_orthogonality(const std::vector<Convolution>& kernels,
                               const std::vector<std::vector<Shift>>& shifts, C* values, C* residuals,
                               Workers& workers);

// A kernel whose gradient has no data is passed over.
template <class C>
void convolution_orthogonality_backward(const C* factors, const std::vector<Convolution>& kernels,
                                        const std::vector<std::vector<Shift>>& shifts, const C* residuals,
                                        const std::vector<ConvolutionGradient>& gradients, Workers& workers);

}  // namespace ortho
