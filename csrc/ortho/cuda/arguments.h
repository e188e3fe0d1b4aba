// The arguments of the kernels that describe matrices. A launch passes them by value, one for each matrix.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../offsets.h"

namespace ortho::cuda {

struct MatrixArguments {
  const void* data;
  std::int64_t order_stride, depth_stride;
  std::int64_t offset;  // of its numbers in what is packed one matrix after the other
  std::int32_t order, depth;
  std::int32_t index;       // of its value
  std::int32_t first_item;  // of the launch that is this matrix's
};

struct GradientArguments {
  void* data;
  std::int64_t order_stride, depth_stride;
  std::int32_t accumulate;
};

// A ColumnPermutation of at most so many digits.
constexpr int most_digits = 4;
struct PermutationArguments {
  struct Digit {
    std::int32_t size, step;
  } digits[most_digits];
  std::int32_t count;
};

inline GradientArguments gradient_arguments(const Gradient& gradient) {
  return {gradient.data, gradient.order_stride, gradient.depth_stride, gradient.accumulate};
}

inline PermutationArguments permutation_arguments(const ColumnPermutation& permutation) {
  PermutationArguments arguments{};
  for (const auto& [size, step] : permutation)
    arguments.digits[arguments.count++] = {static_cast<std::int32_t>(size), static_cast<std::int32_t>(step)};
  return arguments;
}

// Fills the arguments of all matrices of a launch; more(work, matrix) fills those of one kernel alone.
template <class Launch, class Arguments, class More>
void fill_matrices(const Launch& launch, const std::vector<Matrix>& matrices,
                   const std::vector<std::int64_t>& offsets, Arguments& arguments, const More& more) {
  arguments.count = static_cast<std::int32_t>(launch.work.size());
  for (std::size_t w = 0; w < launch.work.size(); ++w) {
    const auto& work = launch.work[w];
    const Matrix& given = matrices[work.matrix];
    auto& matrix = arguments.matrices[w];
    matrix.data = given.data;
    matrix.order_stride = given.order_stride;
    matrix.depth_stride = given.depth_stride;
    matrix.offset = offsets[work.matrix];
    matrix.order = static_cast<std::int32_t>(given.shape.order);
    matrix.depth = static_cast<std::int32_t>(given.shape.depth);
    matrix.index = work.matrix;
    matrix.first_item = work.first_item;
    more(work, matrix);
  }
}

}  // namespace ortho::cuda
