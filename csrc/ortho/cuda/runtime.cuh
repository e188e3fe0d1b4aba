// What launchers ask of CUDA, and of the emulator in its place.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "device.cuh"
#include "launch_plan.h"

namespace ortho::cuda {

struct LaunchConfig {
  std::int32_t blocks, threads;
  std::size_t shared_bytes;
  bool cooperative = false;
};

// Calls body(S()) with the type of the storage format. Float arithmetic never meets float64 storage.
template <class C, class Body>
void in_storage(Storage storage, const Body& body) {
  switch (storage) {
    case Storage::float64:
      if constexpr (std::is_same_v<C, double>) body(double{});
      return;
    case Storage::float32:
      return body(float{});
    case Storage::bfloat16:
      return body(bfloat16{});
    case Storage::float16:
      return body(float16{});
  }
}

}  // namespace ortho::cuda

#ifdef ORTHO_EMULATED
#  include "emulated_launch.h"  // of tests/emulation
#else
#  include <cuda_runtime_api.h>

#  include <map>
#  include <mutex>
#  include <utility>

namespace ortho::cuda {

inline void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(what + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")");
}

inline void zero(void* memory, std::size_t bytes, void* stream) {
  check(cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream)), "clearing counters");
}

// A kernel may have so many bytes of shared memory; more must be asked for, once for each device.
inline void allow_shared_bytes(const char* name, const void* kernel, std::size_t bytes) {
  constexpr std::size_t always = 48 * 1024;
  if (bytes <= always) return;
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, std::size_t> allowed;
  int device = 0;
  check(cudaGetDevice(&device), name);
  const std::lock_guard<std::mutex> lock(mutex);
  std::size_t& most = allowed[{kernel, device}];
  if (bytes <= most) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        name);
  most = bytes;
}

template <class Arguments>
void launch(const char* name, void (*kernel)(Arguments), const LaunchConfig& shape,
            const Arguments& arguments, void* stream) {
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
  allow_shared_bytes(name, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers), name);
}

}  // namespace ortho::cuda

#endif
