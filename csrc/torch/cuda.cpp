// The operators on CUDA tensors, in a namespace of their own: the Python side decides which of the GPU's
// backends serves. Everything goes into torch's current stream, and nothing waits.
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>

#include <string>
#include <tuple>
#include <vector>

#include "../ortho/cuda/arguments.h"
#include "../ortho/cuda/penalties.h"
#include "tensor_args.h"

namespace {

using ortho::in_compute_type;
using ortho::Integers;
using ortho::matrix_count;
using ortho::numbers;
using ortho::Tensor;
using ortho::Tensors;
using ortho::total_order;
using ortho::total_triangle;
using ortho::WeightViews;

// The torch that loaded this library has the function in a library to which this one is not linked, so that
// it also loads where that is missing.
void* current_stream(std::int32_t device) {
  using GetStream = AOTITorchError (*)(std::int32_t, void**);
  static const GetStream get_stream = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    void* symbol = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
    if (!symbol) throw std::runtime_error("this torch has no CUDA streams: it is built without CUDA");
    return reinterpret_cast<GetStream>(symbol);
  }();
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(get_stream(device, &stream));
  return stream;
}

std::int32_t device_index(const Tensor& tensor) {
  std::int32_t index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(tensor.get(), &index));
  return index;
}

// The one device of all tensors of a call, made current for torch and for this library's own CUDA runtime.
class DeviceContext {
 public:
  explicit DeviceContext(const Tensors& weights)
      : index_(device_index(first_of(weights))),
        guard_(index_),
        device_(ortho::cuda::device_facts(index_)),
        stream_(current_stream(index_)) {
    if (const cudaError_t error = cudaSetDevice(index_); error != cudaSuccess) {
      throw std::runtime_error("cuda:" + std::to_string(index_) + ": " + cudaGetErrorString(error));
    }
    for (std::size_t w = 0; w < weights.size(); ++w) {
      check(weights[w], [w] { return "weights[" + std::to_string(w) + "]"; });
    }
  }

  // Memory of another device would be read as if it were this one's. `name()` is for the error.
  template <class Name>
  void check(const Tensor& tensor, const Name& name) const {
    if (!tensor.is_cuda() || device_index(tensor) != index_) {
      throw std::runtime_error(name() + ": expected a tensor on cuda:" + std::to_string(index_) +
                               ", where weights[0] is");
    }
  }

  template <class C>
  const C* numbers(const Tensor& tensor, std::int64_t count, const char* name) const {
    check(tensor, [name] { return std::string(name); });
    return ortho::numbers<C>(tensor, count, name);
  }

  const ortho::cuda::Device& device() const { return device_; }
  void* stream() const { return stream_; }

 private:
  static const Tensor& first_of(const Tensors& weights) {
    if (weights.empty()) throw std::runtime_error("weights: expected at least one, got an empty list");
    return weights.front();
  }

  std::int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
  ortho::cuda::Device device_;
  void* stream_;
};

// From torch's caching allocator, which gives freed memory to work later in the same stream alone.
class TorchWorkspace final : public ortho::cuda::Workspace {
 public:
  explicit TorchWorkspace(const Tensor& like) : like_(like) {}
  void* allocate(std::size_t bytes) override {
    memory_.push_back(ortho::new_numbers<std::uint8_t>(static_cast<std::int64_t>(bytes),
                                                       aoti_torch_device_type_cuda(), device_index(like_)));
    return memory_.back().mutable_data_ptr();
  }

 private:
  const Tensor& like_;
  Tensors memory_;
};

template <class C>
Tensor new_numbers(const Tensors& weights, std::int64_t count) {
  return ortho::new_numbers<C>(count, aoti_torch_device_type_cuda(), device_index(weights.front()));
}

std::tuple<Tensor, Tensor> soft_orthogonality(const Tensors& weights, const Integers& groups,
                                              const Integers& sides, double diagonal, double off_diagonal,
                                              bool keep) {
  const DeviceContext context(weights);
  const WeightViews views(weights, groups, sides);
  TorchWorkspace workspace(weights.front());
  return in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    Tensor values = new_numbers<C>(weights, matrix_count(views));
    Tensor residuals = new_numbers<C>(weights, keep ? total_triangle(views) : 0);
    ortho::cuda::soft_orthogonality<C>(views.matrices, {diagonal, off_diagonal},
                                       static_cast<C*>(values.mutable_data_ptr()),
                                       keep ? static_cast<C*>(residuals.mutable_data_ptr()) : nullptr,
                                       workspace, context.device(), context.stream());
    return std::make_tuple(values, residuals);
  });
}

void soft_orthogonality_backward(const Tensor& factors, const Tensors& weights, const Integers& groups,
                                 const Integers& sides, const Tensor& residuals, std::int64_t precision,
                                 const Tensors& gradients, const Integers& wanted, bool accumulate) {
  const DeviceContext context(weights);
  const WeightViews views(weights, groups, sides);
  const auto targets = ortho::view_gradients(weights, views, gradients, wanted, accumulate);
  TorchWorkspace workspace(weights.front());
  in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    ortho::cuda::soft_orthogonality_backward<C>(
        context.numbers<C>(factors, matrix_count(views), "factors"), views.matrices,
        context.numbers<C>(residuals, total_triangle(views), "residuals"), targets,
        static_cast<ortho::Precision>(precision), workspace, context.device(), context.stream());
  });
}

std::tuple<Tensor, Tensor> srip(const Tensors& weights, const Integers& groups, const Integers& sides,
                                const Tensor& start, std::int64_t iterations, bool through, bool keep) {
  ortho::check_count("iterations", iterations);
  const DeviceContext context(weights);
  const WeightViews views(weights, groups, sides);
  const ortho::SripOptions options{iterations, through};
  TorchWorkspace workspace(weights.front());
  return in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    Tensor values = new_numbers<C>(weights, matrix_count(views));
    Tensor vectors = new_numbers<C>(weights, keep ? 2 * ortho::pairs_of(options) * total_order(views) : 0);
    ortho::cuda::srip<C>(views.matrices, views.column_permutations(weights, ortho::cuda::most_digits),
                         context.numbers<C>(start, total_order(views), "start"), options,
                         static_cast<C*>(values.mutable_data_ptr()),
                         keep ? static_cast<C*>(vectors.mutable_data_ptr()) : nullptr, workspace,
                         context.device(), context.stream());
    return std::make_tuple(values, vectors);
  });
}

void srip_backward(const Tensor& factors, const Tensors& weights, const Integers& groups,
                   const Integers& sides, const Tensor& vectors, std::int64_t pairs, const Tensors& gradients,
                   const Integers& wanted, bool accumulate) {
  ortho::check_count("pairs", pairs);
  const DeviceContext context(weights);
  const WeightViews views(weights, groups, sides);
  const auto targets = ortho::view_gradients(weights, views, gradients, wanted, accumulate);
  in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    ortho::cuda::srip_backward<C>(context.numbers<C>(factors, matrix_count(views), "factors"), views.matrices,
                                  views.column_permutations(weights, ortho::cuda::most_digits),
                                  context.numbers<C>(vectors, 2 * pairs * total_order(views), "vectors"),
                                  pairs, targets, context.device(), context.stream());
  });
}

Tensor start_vectors(const Tensor& keys, const Tensor& step) {
  const DeviceContext context({keys});
  Tensor vectors = new_numbers<float>({keys}, keys.numel());
  ortho::cuda::start_vectors(context.numbers<std::int64_t>(keys, keys.numel(), "keys"), keys.numel(),
                             context.numbers<std::int64_t>(step, 1, "step"),
                             static_cast<float*>(vectors.mutable_data_ptr()), context.device(),
                             context.stream());
  return vectors;
}

}  // namespace

// ortho_kernels/backends/cuda.py defines the schemas.
STABLE_TORCH_LIBRARY_IMPL(ortho_kernels_cuda, CUDA, m) {
  m.impl("soft_orthogonality", TORCH_BOX(&soft_orthogonality));
  m.impl("soft_orthogonality_backward", TORCH_BOX(&soft_orthogonality_backward));
  m.impl("srip", TORCH_BOX(&srip));
  m.impl("srip_backward", TORCH_BOX(&srip_backward));
  m.impl("start_vectors", TORCH_BOX(&start_vectors));
}

// How this library was built, for `doctor`.
extern "C" __attribute__((visibility("default"))) const char* ortho_kernels_cuda_facts() {
  return ORTHO_CUDA_FACTS;
}
