#include "cpu_dispatch.h"

#include "cpu_level.h"

namespace ortho {
namespace {

const CpuKernels& kernels_of([[maybe_unused]] const std::string& level) {
#if defined(__x86_64__) && !defined(ORTHO_BASELINE_ONLY)
  if (level == "avx512") return avx512_kernels;
  if (level == "avx2") return avx2_kernels;
#endif
  return baseline_kernels;
}

}  // namespace

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = kernels_of(chosen_cpu_level());
  return chosen;
}

}  // namespace ortho
