#include "level.h"

#include <cstdlib>
#include <stdexcept>

namespace ortho {

std::vector<CpuLevel> cpu_levels() {
  std::vector<CpuLevel> levels = {{"baseline", true}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  levels.push_back({"avx2", avx2});
  levels.push_back({"avx512", avx512});
  levels.push_back({"avx512_bf16", avx512 && __builtin_cpu_supports("avx512bf16")});
#endif
  return levels;
}

std::string chosen_cpu_level() {
  const std::vector<CpuLevel> levels = cpu_levels();
  const char* asked = std::getenv("ORTHO_KERNELS_CPU_LEVEL");
  std::string best, names;
  for (const CpuLevel& level : levels) {
    names +=
        (names.empty() ? "" : ", ") + std::string(level.name) + (level.supported ? "" : " (not on this CPU)");
    if (level.supported && (!asked || !*asked || asked == std::string(level.name))) best = level.name;
  }
  if (best.empty()) {
    throw std::runtime_error("ORTHO_KERNELS_CPU_LEVEL is '" + std::string(asked) +
                             "'; it can be one of: " + names);
  }
  return best;
}

}  // namespace ortho
