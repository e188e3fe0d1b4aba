// torch tensors as the matrices that the kernels work on: never a copy.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <stdexcept>
#include <string>
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

// What errors call a weight, and the tensor that gets its gradient.
std::string weight_name(Place place);
std::string gradient_name(Place place);

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

// Throws unless this has the shape, dtype and device of its weight.
void check_gradient(const Tensor& gradient, const Tensor& weight, Place place);

// Calls visit(index, gradient) for each weight of this list: null for one that is not wanted.
template <class Visit>
void for_gradients(const std::vector<Tensor>& weights, const std::vector<Tensor>& gradients,
                   const std::vector<std::int64_t>& wanted, const char* list, const Visit& visit) {
  if (wanted.size() != weights.size()) throw std::runtime_error("expected one `wanted` for each weight");
  std::size_t given = 0;
  for (const std::int64_t want : wanted) given += want != 0;
  if (given != gradients.size()) throw std::runtime_error("expected one gradient for each wanted weight");
  auto next = gradients.begin();
  for (std::size_t w = 0; w < weights.size(); ++w) {
    if (wanted[w]) check_gradient(*next, weights[w], {w, list});
    visit(w, wanted[w] ? &*next++ : nullptr);
  }
}

// The given tensors as gradients of those weights that are wanted, one each, to be overwritten or added to. A
// gradient has the shape, dtype and device of its weight and its columns at one stride in the same order.
std::vector<Gradient> view_gradients(const std::vector<Tensor>& weights, const WeightViews& views,
                                     const std::vector<Tensor>& gradients,
                                     const std::vector<std::int64_t>& wanted, bool accumulate);

}  // namespace ortho
