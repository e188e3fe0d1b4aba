#include "dispatch.h"

#include "level.h"

namespace ortho {
namespace {

const CpuKernels& kernels_of([[maybe_unused]] const std::string& level) {
#if defined(__x86_64__)
  if (level == "avx512" || level == "avx512_bf16") return avx512_kernels;
  if (level == "avx2") return avx2_kernels;
#endif
  return baseline_kernels;
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = kernels_of(chosen_cpu_level());
  return chosen;
}

RoundedGradientTile cpu_bfloat_gradient_tile() {
#if defined(__x86_64__)
  static const bool has = chosen_cpu_level() == "avx512_bf16";
  if (has) return bfloat_gradient_tile;
#endif
  return nullptr;
}

}  // namespace ortho
