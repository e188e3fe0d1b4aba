// SRIP's start vectors, an entry at a time.
#pragma once

#include "../start_vectors.h"
#include "device.cuh"

namespace ortho::cuda {

constexpr int start_threads = 256, start_blocks = 4;  // of a block; blocks that fit a multiprocessor together

struct StartArguments {
  const std::int64_t* keys;
  const std::int64_t* step;
  float* vectors;
  std::int64_t count;
};

ORTHO_KERNEL(start_threads, start_blocks, draw_vectors, StartArguments) {
  const std::int64_t step = *arguments.step;
  const std::int64_t first = std::int64_t{block_index()} * start_threads + thread_index();
  for (std::int64_t i = first; within(i, arguments.count); i += std::int64_t{block_count()} * start_threads) {
    arguments.vectors[i] = root_of_two * inverse_erf(uniform_number(arguments.keys[i], step));
  }
}

}  // namespace ortho::cuda
