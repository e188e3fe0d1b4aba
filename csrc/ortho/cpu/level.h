// Which instruction level the kernels run at: the highest that was built and that this CPU has, unless the
// environment variable ORTHO_KERNELS_CPU_LEVEL names another.
#pragma once

#include <string>
#include <vector>

namespace ortho {

struct CpuLevel {
  const char* name;
  bool supported;  // by this CPU
};

// Those built into this library, lowest first.
std::vector<CpuLevel> cpu_levels();

// Throws std::runtime_error for a name that is unknown, not built or not supported here.
std::string chosen_cpu_level();

}  // namespace ortho
