// torch's threads as the workers of the CPU kernels, and new CPU tensors.
#pragma once

#include "../ortho/cpu/parallel.h"
#include "tensor_args.h"

namespace ortho {

class TorchWorkers final : public Workers {
 public:
  std::int64_t count() const override { return torch::stable::get_num_threads(); }
  void start(std::int64_t workers, void (*run)(void*), void* context) override {
    torch::stable::parallel_for(0, workers, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t worker = begin; worker < end; ++worker) run(context);
    });
  }
};

template <class C>
Tensor new_cpu_numbers(std::int64_t count) {
  return new_numbers<C>(count, aoti_torch_device_type_cpu(), 0);
}

}  // namespace ortho
