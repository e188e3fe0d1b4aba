// How a caller numbers the entries of a matrix's vector.
#pragma once

#include "arguments.h"
#include "device.cuh"

namespace ortho::cuda {

// The caller's index of an entry. It divides once for every digit: not for inner loops.
ORTHO_DEVICE std::int64_t caller_index(const PermutationArguments& permutation, std::int32_t entry) {
  if (permutation.count == 0) return entry;
  std::int64_t index = 0;
  for (int d = permutation.count - 1; d >= 0; --d) {
    index += std::int64_t{entry % permutation.digits[d].size} * permutation.digits[d].step;
    entry /= permutation.digits[d].size;
  }
  return index;
}

}  // namespace ortho::cuda
