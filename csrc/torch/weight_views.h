// torch tensors as the matrices that the kernels work on: never a copy.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <vector>

#include "../ortho/matrix.h"
#include "../ortho/offsets.h"

namespace ortho {

using torch::stable::Tensor;

enum class Side : std::int64_t { rows = 0, columns = 1 };

// A weight (out, ...) with `groups` groups is `groups` matrices of out/groups rows. Its columns are numbered
// as they lie in memory: channels_last kernels have another order of columns than contiguous ones, and the
// same Gram.
struct WeightView {
  std::int64_t groups = 1, rows = 0, columns = 1;
  std::int64_t row_stride = 0, column_stride = 0;
  Side side = Side::rows;
  std::vector<std::int64_t> dims;  // those that make up the columns, slowest first, without those of size one

  Shape shape() const { return side == Side::rows ? Shape{rows, columns} : Shape{columns, rows}; }
  std::int64_t order_stride() const { return side == Side::rows ? row_stride : column_stride; }
  std::int64_t depth_stride() const { return side == Side::rows ? column_stride : row_stride; }
  std::int64_t group_stride() const { return rows * row_stride; }
};

// A weight's place, for errors: `weights[3]`.
struct Place {
  std::size_t index;
  const char* list = "weights";
};

WeightView view_weight(const Tensor& weight, Place place, std::int64_t groups, std::int64_t side);

Storage storage_of(const Tensor& weight, Place place);

// The matrices of all groups of all weights, in order.
struct WeightViews {
  // `list` is what errors call the list.
  WeightViews(const std::vector<Tensor>& weights, const std::vector<std::int64_t>& groups,
              const std::vector<std::int64_t>& sides, const char* list = "weights");

  bool has_float64() const;
  // How a caller numbers the entries of each matrix's vector: as the shape of the weight does. Throws for a
  // weight that needs more digits than `most`.
  std::vector<ColumnPermutation> column_permutations(const std::vector<Tensor>& weights,
                                                     std::size_t most = SIZE_MAX) const;

  std::vector<WeightView> views;
  std::vector<Matrix> matrices;
  const char* list;
};

// Throws where a weight and the other of its pair have no cross Gram: it takes one number of groups, one
// dtype, and columns of one number that lie in memory in one order.
void check_pairs(const std::vector<Tensor>& weights, const WeightViews& views,
                 const std::vector<Tensor>& others, const WeightViews& other_views);

// The given tensors as gradients of those weights that are wanted, one each, to be overwritten or added to. A
// gradient has the shape, dtype and device of its weight and its columns at one stride in the same order.
std::vector<Gradient> view_gradients(const std::vector<Tensor>& weights, const WeightViews& views,
                                     const std::vector<Tensor>& gradients,
                                     const std::vector<std::int64_t>& wanted, bool accumulate);

}  // namespace ortho
