// Kernels that are wrong, for the tests of the emulator: it must report each by name instead of hanging.
#include <cmath>
#include <stdexcept>
#include <string>

#include "../../csrc/ortho/cuda/reduce.cuh"
#include "../../csrc/ortho/cuda/runtime.cuh"

namespace ortho::cuda {
namespace {

struct Memory {
  float* numbers;
  std::uint32_t* counter;
};

ORTHO_KERNEL(64, 1, half_a_barrier, Memory) {
  (void)arguments;
  if (thread_index() < 32) block_barrier();
}

ORTHO_KERNEL(64, 1, two_barriers, Memory) {
  (void)arguments;
  if (thread_index() % 2) {
    block_barrier();
  } else {
    block_barrier();
  }
}

ORTHO_KERNEL(64, 1, half_a_collective, Memory) {
  if (thread_index() % 2) arguments.numbers[0] = shuffle_xor(1.f, 2);
}

ORTHO_KERNEL(64, 1, waits_for_ever, Memory) {
  while (read_counter(arguments.counter) == 0) let_others_run();
}

ORTHO_KERNEL(64, 1, tells_without_a_fence, Memory) {
  memory_fence();
  block_barrier();
  if (thread_index() == 0) count_up(arguments.counter);
}

ORTHO_KERNEL(64, 1, hears_without_a_fence, Memory) {
  if (thread_index() == 0) {
    memory_fence();
    count_up(arguments.counter);
  }
  block_barrier();
}

ORTHO_KERNEL(64, 1, misaligned_copy, Memory) { copy_async<16>(shared_memory(), arguments.numbers + 1, true); }

ORTHO_KERNEL(64, 1, reads_what_nobody_wrote, Memory) {
  arguments.numbers[thread_index()] = reinterpret_cast<float*>(shared_memory())[thread_index()];
}

// Right: lane l gets the sum over the lanes of its warp of their indices.
ORTHO_KERNEL(64, 1, adds_lanes, Memory) {
  arguments.numbers[thread_index()] = sum_over_warp(static_cast<float>(thread_index()));
}

// Right in every schedule of the emulator, but nothing orders the write and the read of a neighbor.
ORTHO_KERNEL(64, 1, orders_by_a_shuffle, Memory) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  shared[thread_index()] = 1;
  const float one = shuffle_xor(1.f, 1);
  arguments.numbers[thread_index()] = one * shared[thread_index() ^ 1];
}

ORTHO_KERNEL(64, 1, orders_by_a_barrier, Memory) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  shared[thread_index()] = 1;
  block_barrier();
  arguments.numbers[thread_index()] = shared[thread_index() ^ 1];
}

// Right only if the copy is awaited.
ORTHO_KERNEL(64, 1, forgets_to_wait, Memory) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  copy_async<4>(shared + thread_index(), arguments.numbers + thread_index(), true);
  commit_copies();
  arguments.numbers[thread_index()] = shared[thread_index()];
}

const struct {
  const char* name;
  void (*kernel)(const Memory&);
} kernels[] = {{"half_a_barrier", half_a_barrier},
               {"two_barriers", two_barriers},
               {"half_a_collective", half_a_collective},
               {"waits_for_ever", waits_for_ever},
               {"tells_without_a_fence", tells_without_a_fence},
               {"hears_without_a_fence", hears_without_a_fence},
               {"misaligned_copy", misaligned_copy},
               {"reads_what_nobody_wrote", reads_what_nobody_wrote},
               {"adds_lanes", adds_lanes},
               {"orders_by_a_shuffle", orders_by_a_shuffle},
               {"orders_by_a_barrier", orders_by_a_barrier},
               {"forgets_to_wait", forgets_to_wait}};

}  // namespace
}  // namespace ortho::cuda

// Null, or what the emulator says. numbers: 64 of them.
extern "C" const char* run_faulty_kernel(const char* name, float* numbers, int copies_arrive_late) {
  static std::string message;
  emulator::settings().copies_arrive_late = copies_arrive_late != 0;
  std::uint32_t counter = 0;
  for (const auto& each : ortho::cuda::kernels) {
    if (std::string(name) != each.name) continue;
    try {
      ortho::cuda::launch(each.name, each.kernel, {1, 64, 256}, ortho::cuda::Memory{numbers, &counter},
                          nullptr);
      return nullptr;
    } catch (const std::exception& error) {
      message = error.what();
      return message.c_str();
    }
  }
  return "no such kernel";
}
