// The plain C++ twin of a launch. Included by csrc/ortho/cuda/runtime.cuh alone.
#pragma once

#include <algorithm>

namespace ortho::cuda {

inline void zero(void* memory, std::size_t bytes, void*) {
  std::fill_n(static_cast<unsigned char*>(memory), bytes, static_cast<unsigned char>(0));
}

template <class Arguments>
void launch(const char* name, void (*kernel)(const Arguments&), const LaunchConfig& shape,
            const Arguments& arguments, void*) {
  emulator::run({name, shape.blocks, shape.threads, shape.shared_bytes, shape.cooperative},
                [&] { kernel(arguments); });
}

}  // namespace ortho::cuda
