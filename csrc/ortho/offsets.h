// Where numbers stand in what a caller packs, one matrix after the other.
#pragma once

#include <cstdint>
#include <vector>

#include "matrix.h"

namespace ortho {

// size_of(order) is how many numbers a matrix of that order takes.
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

// Of the packed triangles of residuals.
inline std::vector<std::int64_t> triangle_offsets(const std::vector<Matrix>& matrices) {
  return packed_offsets(matrices, [](std::int64_t order) { return triangle(order); });
}

// Of vectors with one entry for each row of R.
inline std::vector<std::int64_t> order_offsets(const std::vector<Matrix>& matrices) {
  return packed_offsets(matrices, [](std::int64_t order) { return order; });
}

// How a caller numbers the columns of a weight where memory has another order. Column i of the memory,
// written with digits of these sizes, the slowest first, is the caller's column sum of digit x step. Empty:
// the same order. A channels_last kernel (out, c, h, w) has the sizes h w, c and the steps 1, h w.
struct ColumnDigit {
  std::int64_t size, step;
};
using ColumnPermutation = std::vector<ColumnDigit>;

}  // namespace ortho
