#include <algorithm>

#include "penalties.h"
#include "runtime.cuh"
#include "start_vectors.cuh"

namespace ortho::cuda {

void start_vectors(const std::int64_t* keys, std::int64_t count, const std::int64_t* step, float* vectors,
                   const Device& device, void* stream) {
  if (count == 0) return;
  const std::int64_t most = std::int64_t{device.multiprocessors} * start_blocks;
  const std::int64_t blocks = std::min((count + start_threads - 1) / start_threads, most);
  launch("draw_vectors", draw_vectors, {static_cast<std::int32_t>(blocks), start_threads, 0},
         StartArguments{keys, step, vectors, count}, stream);
}

}  // namespace ortho::cuda
