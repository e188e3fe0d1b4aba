// What is too large to stay in the caches.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"

namespace ortho {

// Whether the gradients that are overwritten are so large together that the first would have left the caches
// when the last is written. Their stores are then non-temporal.
inline bool outgrows_caches(const std::vector<Matrix>& matrices, const std::vector<Gradient>& gradients) {
  constexpr std::int64_t usual_cache = 4'000'000;  // entries
  std::int64_t entries = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    if (gradients[m].data && !gradients[m].accumulate)
      entries += matrices[m].shape.order * matrices[m].shape.depth;
  }
  return entries > usual_cache;
}

}  // namespace ortho
