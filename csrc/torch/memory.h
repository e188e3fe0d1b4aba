// Where a tensor's numbers lie. Storage can be freed or shrunk under a tensor, which keeps its shape and
// strides: FSDP1 does so between uses. So every address of a tensor that was given passes here.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace ortho {

using torch::stable::Tensor;

// How many bytes of its storage a tensor reaches into.
inline std::int64_t bytes_reached(const Tensor& tensor) {
  if (tensor.numel() == 0) return 0;
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  std::int64_t entries = tensor.storage_offset() + 1;
  for (std::size_t dim = 0; dim < sizes.size(); ++dim) entries += (sizes[dim] - 1) * strides[dim];
  return entries * static_cast<std::int64_t>(tensor.element_size());
}

// The words of `check_storage` in matrix_view.py.
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

}  // namespace ortho
