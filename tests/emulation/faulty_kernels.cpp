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

// ---- a warpgroup that multiplies ones ---------------------------------------------------------------------
//
// Both operands are one panel: 64 vectors, 16 of the depth. So each sum is 16, in 32 for each thread.

constexpr int panel_vectors = 64, panel_depth = 16;

void fill_panel(float number) {
  auto* const panel = reinterpret_cast<float16*>(shared_memory());
  for (int i = thread_index() % 128; i < panel_vectors * panel_depth; i += 128) panel[i] = to_float16(number);
}

void show_ones() {
  fill_panel(1);
  show_to_tensor_cores();
  block_barrier();
}

void begin(float (&sums)[32], int bytes_behind = 0) {
  const PanelPlace panel(shared_memory() + bytes_behind, 8 * 16, panel_vectors * 16);
  begin_product<float16, false, false>(sums, panel, panel, false);
}

void keep(const Memory& memory, const float (&sums)[32]) {
  if (thread_index() < 64) memory.numbers[thread_index()] = sums[thread_index() % 32];
}

// Right.
ORTHO_KERNEL(128, 1, multiplies, Memory) {
  float sums[32] = {};
  show_ones();
  begin_products();
  begin(sums);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, multiplies_what_is_hidden, Memory) {
  float sums[32];
  fill_panel(1);
  block_barrier();
  show_to_tensor_cores();  // too late
  begin_products();
  begin(sums);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, shows_only_the_panel_before, Memory) {
  float sums[32];
  show_ones();
  fill_panel(2);
  block_barrier();
  begin_products();
  begin(sums);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, begins_without_a_fence, Memory) {
  float sums[32];
  show_ones();
  begin(sums);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

// The sums were looked at since.
ORTHO_KERNEL(128, 1, goes_on_without_a_fence, Memory) {
  float sums[32];
  show_ones();
  begin_products();
  begin(sums);
  commit_products();
  await_products(sums);
  begin(sums);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, awaits_without_a_commit, Memory) {
  float sums[32];
  show_ones();
  begin_products();
  begin(sums);
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, ends_without_waiting, Memory) {
  (void)arguments;
  float sums[32];
  show_ones();
  begin_products();
  begin(sums);
  commit_products();
}

// Right only if the product does not take its time.
ORTHO_KERNEL(128, 1, reads_sums_too_early, Memory) {
  float sums[32] = {};
  show_ones();
  begin_products();
  begin(sums);
  commit_products();
  keep(arguments, sums);
  await_products(sums);
}

// So is this one, and other threads write what the product reads.
ORTHO_KERNEL(128, 1, writes_panels_too_early, Memory) {
  float sums[32];
  show_ones();
  begin_products();
  begin(sums);
  commit_products();
  block_barrier();
  fill_panel(2);
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, misaligned_panel, Memory) {
  float sums[32];
  show_ones();
  begin_products();
  begin(sums, 8);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, half_a_product, Memory) {
  float sums[32];
  show_ones();
  begin_products();
  if (thread_index() % 2) begin(sums);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

ORTHO_KERNEL(128, 1, a_panel_for_each_lane, Memory) {
  float sums[32];
  show_ones();
  begin_products();
  begin(sums, thread_index() % 2 * 16);
  commit_products();
  await_products(sums);
  keep(arguments, sums);
}

// ---- barriers at which some threads only arrive
// --------------------------------------------------------------

// Right: one warp writes, the other reads.
ORTHO_KERNEL(64, 1, hands_over, Memory) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  const int lane = thread_index() % 32;
  for (int round = 0; round < 3; ++round) {
    if (thread_index() >= 32) {
      if (round > 0) sync_at(2, 64);
      shared[lane] = static_cast<float>(round);
      arrive_at(1, 64);
    } else {
      sync_at(1, 64);
      arguments.numbers[lane] = shared[lane ^ 1];
      if (round < 2) arrive_at(2, 64);
    }
  }
}

// Right only if the reader is fast.
ORTHO_KERNEL(64, 1, writes_what_is_still_read, Memory) {
  auto* shared = reinterpret_cast<float*>(shared_memory());
  const int lane = thread_index() % 32;
  for (int round = 0; round < 2; ++round) {
    if (thread_index() >= 32) {
      shared[lane] = static_cast<float>(round);
      arrive_at(1 + round, 64);
    } else {
      sync_at(1 + round, 64);
      arguments.numbers[lane + 32 * round] = shared[lane ^ 1];
    }
  }
}

ORTHO_KERNEL(64, 1, leaves_a_barrier_half_full, Memory) {
  (void)arguments;
  if (thread_index() < 32) arrive_at(1, 64);
}

ORTHO_KERNEL(64, 1, waits_for_too_many, Memory) {
  (void)arguments;
  if (thread_index() < 32) {
    sync_at(1, 96);
  } else {
    arrive_at(1, 96);
  }
}

ORTHO_KERNEL(64, 1, expects_other_numbers, Memory) {
  (void)arguments;
  sync_at(1, thread_index() < 32 ? 64 : 96);
}

ORTHO_KERNEL(64, 1, arrives_for_nobody, Memory) {
  (void)arguments;
  arrive_at(1, 64);
}

// Threads behind the warpgroup fill the panel.
template <bool Shows>
void multiply_what_others_wrote(const Memory& memory) {
  if (thread_index() >= 128) {
    fill_panel(1);
    if (Shows) show_to_tensor_cores();
    arrive_at(1, 256);
    return;
  }
  float sums[32] = {};
  sync_at(1, 256);
  begin_products();
  begin(sums);
  commit_products();
  await_products(sums);
  keep(memory, sums);
}

// Right.
ORTHO_KERNEL(256, 1, multiplies_what_others_wrote, Memory) { multiply_what_others_wrote<true>(arguments); }
ORTHO_KERNEL(256, 1, multiplies_what_others_hid, Memory) { multiply_what_others_wrote<false>(arguments); }

const struct {
  const char* name;
  void (*kernel)(const Memory&);
  int threads = 64;
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
               {"forgets_to_wait", forgets_to_wait},
               {"multiplies", multiplies, 128},
               {"multiplies_what_is_hidden", multiplies_what_is_hidden, 128},
               {"shows_only_the_panel_before", shows_only_the_panel_before, 128},
               {"begins_without_a_fence", begins_without_a_fence, 128},
               {"goes_on_without_a_fence", goes_on_without_a_fence, 128},
               {"awaits_without_a_commit", awaits_without_a_commit, 128},
               {"ends_without_waiting", ends_without_waiting, 128},
               {"reads_sums_too_early", reads_sums_too_early, 128},
               {"writes_panels_too_early", writes_panels_too_early, 128},
               {"misaligned_panel", misaligned_panel, 128},
               {"half_a_product", half_a_product, 128},
               {"a_panel_for_each_lane", a_panel_for_each_lane, 128},
               {"hands_over", hands_over},
               {"writes_what_is_still_read", writes_what_is_still_read},
               {"leaves_a_barrier_half_full", leaves_a_barrier_half_full},
               {"waits_for_too_many", waits_for_too_many},
               {"expects_other_numbers", expects_other_numbers},
               {"arrives_for_nobody", arrives_for_nobody},
               {"multiplies_what_others_wrote", multiplies_what_others_wrote, 256},
               {"multiplies_what_others_hid", multiplies_what_others_hid, 256}};

}  // namespace
}  // namespace ortho::cuda

// Null, or what the emulator says. numbers: 64 of them. Late: asynchronous copies and products.
extern "C" const char* run_faulty_kernel(const char* name, float* numbers, int copies_arrive_late) {
  static std::string message;
  emulator::settings().copies_arrive_late = copies_arrive_late != 0;
  std::uint32_t counter = 0;
  for (const auto& each : ortho::cuda::kernels) {
    if (std::string(name) != each.name) continue;
    try {
      ortho::cuda::launch(each.name, each.kernel, {1, each.threads, 4096},
                          ortho::cuda::Memory{numbers, &counter}, nullptr);
      return nullptr;
    } catch (const std::exception& error) {
      message = error.what();
      return message.c_str();
    }
  }
  return "no such kernel";
}
