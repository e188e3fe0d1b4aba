// What the launcher asks of CUDA, and of the emulator in its place.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "device.cuh"
#include "plan.h"

#ifdef ORTHO_EMULATED
#  include <algorithm>
#else
#  include <cuda_runtime_api.h>
#endif

namespace ortho::cuda {

struct LaunchShape {
  std::int32_t blocks, threads;
  std::size_t shared_bytes;
  bool cooperative = false;
};

#ifdef ORTHO_EMULATED

inline void zero(void* memory, std::size_t bytes, void*) {
  std::fill_n(static_cast<unsigned char*>(memory), bytes, static_cast<unsigned char>(0));
}

template <class Arguments>
void launch(const char* name, void (*kernel)(const Arguments&), const LaunchShape& shape,
            const Arguments& arguments, void*) {
  emulator::run({name, shape.blocks, shape.threads, shape.shared_bytes, shape.cooperative},
                [&] { kernel(arguments); });
}

#else

inline void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(what + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

inline void zero(void* memory, std::size_t bytes, void* stream) {
  check(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)), "clearing counters");
}

template <class Arguments>
void launch(const char* name, void (*kernel)(Arguments), const LaunchShape& shape, const Arguments& arguments,
            void* stream) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(shape.blocks);
  config.blockDim = static_cast<unsigned>(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = shape.cooperative ? 1 : 0;
  void* pointers[] = {const_cast<Arguments*>(&arguments)};
  check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers), name);
}

#endif

}  // namespace ortho::cuda
