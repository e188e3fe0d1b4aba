#include "weight_views.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "tensor_args.h"

namespace ortho {

std::string weight_name(Place place) {
  return std::string(place.list) + "[" + std::to_string(place.index) + "]";
}
std::string gradient_name(Place place) { return "the gradient of " + weight_name(place); }

namespace {

// Asked for once a tensor: each question to torch is a call into another library.
using Lengths = torch::headeronly::IntHeaderOnlyArrayRef;

std::runtime_error bad_weight(Place place, const std::string& problem) {
  return std::runtime_error(weight_name(place) + ": " + problem);
}

// The stride of the columns if these dimensions, slowest first, follow each other at one stride; -1 if not.
std::int64_t common_stride(Lengths sizes, Lengths strides, const std::vector<std::int64_t>& dims) {
  for (std::size_t i = 0; i + 1 < dims.size(); ++i) {
    if (strides[dims[i]] != strides[dims[i + 1]] * sizes[dims[i + 1]]) return -1;
  }
  return dims.empty() ? 1 : strides[dims.back()];
}

}  // namespace

Storage storage_of(const Tensor& weight, Place place) {
  using torch::headeronly::ScalarType;
  switch (weight.scalar_type()) {
    case ScalarType::Double:
      return Storage::float64;
    case ScalarType::Float:
      return Storage::float32;
    case ScalarType::BFloat16:
      return Storage::bfloat16;
    case ScalarType::Half:
      return Storage::float16;
    default:
      throw bad_weight(place, "expected float64, float32, bfloat16 or float16");
  }
}

WeightView view_weight(const Tensor& weight, Place place, std::int64_t groups, std::int64_t side) {
  const Lengths sizes = weight.sizes(), strides = weight.strides();
  const auto ndim = static_cast<std::int64_t>(sizes.size());
  if (ndim < 2) throw bad_weight(place, "expected at least 2 dimensions, got " + std::to_string(ndim));
  if (groups < 1 || sizes[0] % groups != 0) {
    throw bad_weight(place, std::to_string(sizes[0]) + " rows can't be divided into " +
                                std::to_string(groups) + " groups");
  }
  if (side != 0 && side != 1)
    throw bad_weight(place, "side must be 0 (rows) or 1 (cols), got " + std::to_string(side));
  WeightView view;
  view.groups = groups;
  view.rows = sizes[0] / groups;
  view.side = static_cast<Side>(side);
  view.row_stride = strides[0];
  const auto slower = [&](std::int64_t a, std::int64_t b) { return strides[a] > strides[b]; };
  view.dims.reserve(ndim - 1);
  for (std::int64_t dim = 1; dim < ndim; ++dim) {
    view.columns *= sizes[dim];
    if (sizes[dim] == 1) continue;
    view.dims.insert(std::upper_bound(view.dims.begin(), view.dims.end(), dim, slower), dim);
  }
  view.column_stride = common_stride(sizes, strides, view.dims);
  if (view.column_stride < 0 && view.rows * view.columns != 0) {
    throw bad_weight(place,
                     "its columns don't lie in memory at one stride in any order; pass weight.contiguous()");
  }
  return view;
}

WeightViews::WeightViews(const std::vector<Tensor>& weights, const std::vector<std::int64_t>& groups,
                         const std::vector<std::int64_t>& sides, const char* list)
    : list(list) {
  if (groups.size() != weights.size() || sides.size() != weights.size()) {
    throw std::runtime_error("expected one number of groups and one side for each of " +
                             std::to_string(weights.size()) + " weights, got " +
                             std::to_string(groups.size()) + " and " + std::to_string(sides.size()));
  }
  views.reserve(weights.size());
  matrices.reserve(weights.size());
  for (std::size_t w = 0; w < weights.size(); ++w) {
    const Place place{w, list};
    const WeightView& view = views.emplace_back(view_weight(weights[w], place, groups[w], sides[w]));
    const Storage storage = storage_of(weights[w], place);
    const auto bytes = static_cast<std::int64_t>(weights[w].element_size());
    const auto* data = static_cast<const char*>(address(weights[w], [place] { return weight_name(place); }));
    for (std::int64_t g = 0; g < view.groups; ++g) {
      matrices.push_back({data ? data + g * view.group_stride() * bytes : nullptr, storage, view.shape(),
                          view.order_stride(), view.depth_stride()});
    }
  }
}

bool WeightViews::has_float64() const {
  return std::any_of(matrices.begin(), matrices.end(),
                     [](const Matrix& m) { return m.storage == Storage::float64; });
}

namespace {

ColumnPermutation column_permutation(const Tensor& weight, const WeightView& view) {
  ColumnPermutation digits;
  if (std::is_sorted(view.dims.begin(), view.dims.end())) return digits;
  const Lengths sizes = weight.sizes();
  for (const std::int64_t dim : view.dims) {
    ColumnDigit digit{sizes[dim], 1};
    for (std::size_t after = dim + 1; after < sizes.size(); ++after) digit.step *= sizes[after];
    if (!digits.empty() && digits.back().step == digit.size * digit.step) {  // both orders agree on these two
      digit.size *= digits.back().size;
      digits.pop_back();
    }
    digits.push_back(digit);
  }
  return digits;
}

bool same_order(const ColumnPermutation& a, const ColumnPermutation& b) {
  const auto same = [](const ColumnDigit& x, const ColumnDigit& y) {
    return x.size == y.size && x.step == y.step;
  };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same);
}

}  // namespace

std::vector<ColumnPermutation> WeightViews::column_permutations(const std::vector<Tensor>& weights,
                                                                std::size_t most) const {
  std::vector<ColumnPermutation> permutations;
  permutations.reserve(matrices.size());
  for (std::size_t w = 0; w < views.size(); ++w) {
    ColumnPermutation own;
    if (views[w].side == Side::columns) own = column_permutation(weights[w], views[w]);
    if (own.size() > most)
      throw bad_weight({w, list},
                       "its dimensions lie in memory in too unusual an order; pass weight.contiguous()");
    permutations.insert(permutations.end(), views[w].groups, own);
  }
  return permutations;
}

void check_pairs(const std::vector<Tensor>& weights, const WeightViews& views,
                 const std::vector<Tensor>& others, const WeightViews& other_views) {
  if (weights.size() != others.size()) throw std::runtime_error("expected one of `others` for each weight");
  for (std::size_t w = 0; w < weights.size(); ++w) {
    const WeightView &view = views.views[w], &other = other_views.views[w];
    const Place place{w, views.list}, other_place{w, other_views.list};
    const std::string both = " and " + weight_name(other_place) + " differ in ";
    if (view.groups != other.groups) throw bad_weight(place, "it" + both + "groups");
    if (view.columns != other.columns) throw bad_weight(place, "it" + both + "their number of columns");
    if (storage_of(weights[w], place) != storage_of(others[w], other_place))
      throw bad_weight(place, "it" + both + "dtype");
    if (!same_order(column_permutation(weights[w], view), column_permutation(others[w], other)))
      throw bad_weight(place, "it" + both + "the order in which their columns lie in memory");
  }
}

namespace {

bool same_kind(const Tensor& a, const Tensor& b) {
  const auto kind = [](const Tensor& tensor) {
    std::array<std::int32_t, 3> own{};
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &own[0]));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &own[1]));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &own[2]));
    return own;
  };
  return a.sizes().equals(b.sizes()) && kind(a) == kind(b);
}

// The matrices of one weight's gradient.
void append_gradients(const Tensor& gradient, const WeightView& view, Place place, bool accumulate,
                      std::vector<Gradient>& gradients) {
  const Lengths sizes = gradient.sizes(), strides = gradient.strides();
  const std::int64_t row = strides[0], column = common_stride(sizes, strides, view.dims);
  if (column < 0 && view.rows * view.columns != 0) {
    throw std::runtime_error(gradient_name(place) +
                             ": its columns must lie in memory at one stride, in the order of the weight's");
  }
  const auto bytes = static_cast<std::int64_t>(gradient.element_size());
  auto* data = static_cast<char*>(mutable_address(gradient, [place] { return gradient_name(place); }));
  for (std::int64_t g = 0; g < view.groups; ++g) {
    void* own = data ? data + g * view.rows * row * bytes : nullptr;
    gradients.push_back(view.side == Side::rows ? Gradient{own, row, column, accumulate}
                                                : Gradient{own, column, row, accumulate});
  }
}

}  // namespace

void check_gradient(const Tensor& gradient, const Tensor& weight, Place place) {
  if (!same_kind(gradient, weight)) {
    throw std::runtime_error(gradient_name(place) + ": expected the weight's shape, dtype and device");
  }
}

std::vector<Gradient> view_gradients(const std::vector<Tensor>& weights, const WeightViews& views,
                                     const std::vector<Tensor>& gradients,
                                     const std::vector<std::int64_t>& wanted, bool accumulate) {
  std::vector<Gradient> result;
  result.reserve(views.matrices.size());
  for_gradients(weights, gradients, wanted, views.list, [&](std::size_t w, const Tensor* gradient) {
    const WeightView& view = views.views[w];
    if (gradient) {
      append_gradients(*gradient, view, {w, views.list}, accumulate, result);
    } else {
      result.insert(result.end(), view.groups, Gradient{});
    }
  });
  return result;
}

}  // namespace ortho
