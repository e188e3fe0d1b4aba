// Runs CUDA kernels on the CPU, so that they can be proven without a GPU: one fiber for each thread of a
// block, several blocks at a time, real barriers and warp collectives. emulated_intrinsics.h calls it in
// place of the hardware.
//
// A kernel that relies on luck is to fail here: shared memory begins as NaN, five schedules run threads in
// very different orders, asynchronous copies arrive at once or as late as they may, and a barrier or a
// collective that not all threads reach is reported with its line instead of hanging. Its memory is always in
// order, so it demands the fences between barriers of a block and counters of the grid instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "arithmetic.h"
#include "races.h"

namespace emulator {

enum class Schedule { forward, reverse, random, first_warp_first, last_warp_first };

struct Settings {
  Schedule schedule = Schedule::forward;
  bool copies_arrive_late = false;
  int resident_blocks = 2;  // that run at the same time, in a launch that is not cooperative
  std::uint64_t seed = 1;
  bool tensor_cores_truncate = true;
};

struct Launch {
  std::string kernel;
  int blocks, threads;
  std::size_t shared_bytes;
  bool cooperative;
  std::vector<int> counts = {};  // how often each block counted up a counter
};

Settings& settings();

// Whether this planted fault is the one to commit (see mutate.py); none is unless chosen.
int& chosen_fault();
inline bool fault_is(int number) { return chosen_fault() == number; }

std::vector<Launch>& launch_log();

// Runs a grid to its end; throws std::runtime_error for what hardware would hang on or leave undefined.
void run(const Launch& launch, const std::function<void()>& kernel);

// ---- what a thread of a kernel may call ------------------------------------------------------------------

int thread_index();
int block_index();
int block_count();
unsigned char* shared_memory();
void block_barrier(int line);
// A barrier of some warps, numbered from 0 to 15; the second form goes on at once. What threads that only
// arrive showed to the tensor cores counts for those that wait.
void barrier(int number, int threads, int line);
void arrive(int number, int threads);
void let_others_run();
void memory_fence();
std::uint32_t count_up(std::uint32_t* counter);
std::uint32_t read_counter(const std::uint32_t* counter);
void copy_async(void* target, const void* source, int bytes, bool valid);
void commit_copies();
// Of a block of 16-bit numbers in shared memory: 16 bytes, at a multiple of as many.
void check_block_row(const void* row);
void await_copies(int groups_that_may_be_missing);

// Products of a warpgroup's panels begin after begin_products() and run until await_products(): at once, or
// as late as they may. What threads wrote to the panels must be shown before a barrier, and a whole warp
// begins the product of the same panels.
void show_to_tensor_cores();
void check_panels(const void* left, const void* right);
void begin_products();
void begin_product(std::function<void()> product);
void commit_products();
void await_products();

// Hands `bytes` bytes of each lane in the mask to all of them, once all have called; what lane l gave is at
// l * bytes until the lane's next collective.
const unsigned char* gather(std::uint32_t mask, const void* mine, std::size_t bytes);

template <class In, class Out, class Combine>
Out exchange(std::uint32_t mask, const In& mine, const Combine& combine) {
  static_assert(std::is_trivially_copyable_v<In>);
  const races::Ignored ignored;
  const unsigned char* all = gather(mask, &mine, sizeof(In));
  return combine(reinterpret_cast<const In*>(all), thread_index() % 32);
}

}  // namespace emulator
