// The kernels of the chosen instruction level.
#pragma once

#include "cpu_kernels.h"

namespace ortho {

// Chosen at the first call; throws what chosen_cpu_level() throws.
const CpuKernels& cpu_kernels();

// Null at levels that have no dot products of bfloat16.
RoundedGradientTile cpu_bfloat_gradient_tile();

template <class T>
const Kernels<T>& cpu_kernels_in();
template <>
inline const Kernels<float>& cpu_kernels_in<float>() {
  return cpu_kernels().in_float;
}
template <>
inline const Kernels<double>& cpu_kernels_in<double>() {
  return cpu_kernels().in_double;
}

}  // namespace ortho
