// What the operators are given, checked: the memory of any tensor, and packed numbers of the compute type.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "weight_views.h"

namespace ortho {

using torch::headeronly::ScalarType;
using Integers = std::vector<std::int64_t>;
using Tensors = std::vector<Tensor>;

// ---- memory ----------------------------------------------------------------------------------------------
// Storage can be freed or shrunk under a tensor, which keeps its shape and strides: FSDP1 does so between
// uses. So every address of a given tensor passes here.

// How many bytes of its storage a tensor reaches into.
inline std::int64_t bytes_reached(const Tensor& tensor) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  std::int64_t entries = tensor.storage_offset() + 1;
  for (std::size_t dim = 0; dim < sizes.size(); ++dim) {
    if (sizes[dim] == 0) return 0;
    entries += (sizes[dim] - 1) * strides[dim];
  }
  return entries * static_cast<std::int64_t>(tensor.element_size());
}

// The words of `check_storage` in the Python side.
[[noreturn]] inline void refuse_storage(const std::string& name, std::int64_t bytes, std::int64_t reached) {
  throw std::runtime_error(
      name + " has " + (bytes == 0 ? "no storage" : "a storage of " + std::to_string(bytes) + " bytes") +
      ", but its shape and strides need " + std::to_string(reached) +
      " bytes; FSDP frees parameters between uses: compute the penalty where they are gathered "
      "(FSDP.summon_full_params), or use FSDP2 (fully_shard)");
}

// `name()` is the tensor's name, for the error.
template <class Name>
void check_storage(const Tensor& tensor, const void* data, const Name& name) {
  const std::int64_t reached = bytes_reached(tensor);
  std::int64_t bytes = 0;
  if (data) TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  if (bytes < reached) refuse_storage(name(), bytes, reached);
}

template <class Name>
const void* address(const Tensor& tensor, const Name& name) {
  const void* data = tensor.const_data_ptr();
  check_storage(tensor, data, name);
  return data;
}

template <class Name>
void* mutable_address(const Tensor& tensor, const Name& name) {
  void* data = tensor.mutable_data_ptr();
  check_storage(tensor, data, name);
  return data;
}

// ---- numbers ---------------------------------------------------------------------------------------------

template <class C>
constexpr ScalarType dtype_of = std::is_same_v<C, double>         ? ScalarType::Double
                                : std::is_same_v<C, std::int64_t> ? ScalarType::Long
                                                                  : ScalarType::Float;
template <class C>
constexpr const char* dtype_name = std::is_same_v<C, double>         ? "float64"
                                   : std::is_same_v<C, std::int64_t> ? "int64"
                                                                     : "float32";

// One-dimensional, uninitialized. Not by torch::stable::empty, which looks its operator up by name: 3 us.
template <class C>
Tensor new_numbers(std::int64_t count, std::int32_t device_type, std::int32_t device_index) {
  static_assert(std::is_floating_point_v<C> || std::is_same_v<C, std::uint8_t>);
  const std::int64_t stride = 1;
  const std::int32_t dtype = std::is_same_v<C, double>  ? aoti_torch_dtype_float64()
                             : std::is_same_v<C, float> ? aoti_torch_dtype_float32()
                                                        : aoti_torch_dtype_uint8();
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(1, &count, &stride, dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

// Calls body with a number of the compute type: float64 where any weight is float64, else float32.
template <class Body>
auto in_compute_type(const WeightViews& views, const Body& body) {
  return views.has_float64() ? body(double{}) : body(float{});
}

template <class C>
const C* numbers(const Tensor& tensor, std::int64_t count, const char* name) {
  if (tensor.scalar_type() != dtype_of<C> || !tensor.is_contiguous() || tensor.numel() != count) {
    throw std::runtime_error(std::string(name) + ": expected " + std::to_string(count) +
                             " contiguous numbers of " + dtype_name<C> + ", got " +
                             std::to_string(tensor.numel()) +
                             (tensor.is_contiguous() ? "" : ", not contiguous") +
                             (tensor.scalar_type() != dtype_of<C> ? ", of another dtype" : ""));
  }
  return static_cast<const C*>(address(tensor, [name] { return std::string(name); }));
}

// A number of applications of R, whose product with any size of memory is far from overflowing.
inline void check_count(const char* name, std::int64_t count) {
  constexpr std::int64_t most = 1 << 20;
  if (count < 1 || count > most) {
    throw std::runtime_error(std::string(name) + ": expected 1 to " + std::to_string(most) + ", got " +
                             std::to_string(count));
  }
}

// Likewise where either list has any.
template <class Body>
auto in_compute_type(const WeightViews& views, const WeightViews& others, const Body& body) {
  return in_compute_type(others.has_float64() ? others : views, body);
}

inline std::int64_t matrix_count(const WeightViews& views) {
  return static_cast<std::int64_t>(views.matrices.size());
}

inline std::int64_t total_order(const WeightViews& views) {
  std::int64_t total = 0;
  for (const Matrix& matrix : views.matrices) total += matrix.shape.order;
  return total;
}

inline std::int64_t total_triangle(const WeightViews& views) {
  std::int64_t total = 0;
  for (const Matrix& matrix : views.matrices) total += triangle(matrix.shape.order);
  return total;
}

}  // namespace ortho
