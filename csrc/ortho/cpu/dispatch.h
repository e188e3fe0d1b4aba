// The kernels of the chosen instruction level.
#pragma once

#include "kernels.h"

namespace ortho {

// Chosen at the first call; throws what chosen_cpu_level() throws.
const CpuKernels& cpu_kernels();

// Null at levels that have no dot products of bfloat16.
RoundedGradientTile cpu_bfloat_gradient_tile();

template <class T>
const Kernels<T>& cpu_kernels_of();
template <>
inline const Kernels<float>& cpu_kernels_of<float>() {
  return cpu_kernels().fp32;
}
template <>
inline const Kernels<double>& cpu_kernels_of<double>() {
  return cpu_kernels().fp64;
}

}  // namespace ortho
