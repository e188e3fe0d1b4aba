// Where each matrix has its part of what is packed one after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.h"

namespace ortho {

// size_of(order) is how much a matrix of that order takes.
template <class Size>
std::vector<std::int64_t> packed_offsets(const std::vector<Matrix>& matrices, const Size& size_of) {
  std::vector<std::int64_t> offsets;
  offsets.reserve(matrices.size());
  std::int64_t offset = 0;
  for (const Matrix& matrix : matrices) {
    offsets.push_back(offset);
    offset += size_of(matrix.shape.order);
  }
  return offsets;
}

}  // namespace ortho
