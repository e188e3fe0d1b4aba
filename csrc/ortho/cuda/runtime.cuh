// What launchers ask of CUDA, and of the emulator in its place.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include "device.cuh"
#include "launch_plan.h"

namespace ortho::cuda {

struct LaunchConfig {
  std::int32_t blocks;
  std::int32_t threads;  // of a block; zero: as many as the kernel is bound to
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

// What is asked of CUDA once for each kernel and device.
struct KernelFacts {
  std::int32_t threads = 0;  // of a block, as the machine code was bound to: not the same for every architecture
  int shared_bytes = 48 * 1024;  // that it may have; more must be asked for
};

// With at least so many bytes of shared memory.
inline KernelFacts facts_of(const char* name, const void* kernel, std::size_t shared_bytes) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, KernelFacts> known;
  int device = 0;
  check(cudaGetDevice(&device), name);
  const std::lock_guard<std::mutex> lock(mutex);
  KernelFacts& facts = known[{kernel, device}];
  if (facts.threads == 0) {
    cudaFuncAttributes attributes{};
    check(cudaFuncGetAttributes(&attributes, kernel), name);
    facts.threads = attributes.maxThreadsPerBlock;
  }
  const auto bytes = static_cast<int>(shared_bytes);
  if (bytes > facts.shared_bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), name);
    facts.shared_bytes = bytes;
  }
  return facts;
}

template <class Arguments>
void launch(const char* name, void (*kernel)(Arguments), const LaunchConfig& shape,
            const Arguments& arguments, void* stream) {
  const KernelFacts facts = facts_of(name, reinterpret_cast<const void*>(kernel), shape.shared_bytes);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(shape.blocks);
  config.blockDim = static_cast<unsigned>(shape.threads > 0 ? shape.threads : facts.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = shape.cooperative ? 1 : 0;
  void* pointers[] = {const_cast<Arguments*>(&arguments)};
  check(cudaLaunchKernelExC(&config, reinterpret_cast<const void*>(kernel), pointers), name);
}

}  // namespace ortho::cuda

#endif
