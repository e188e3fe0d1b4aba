// What this machine can do at best, as machine_rates.py measures it: float32 multiply-adds from registers
// alone, and reading and copying memory that no cache holds. Compiled for the machine it runs on.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "simd.h"

namespace {

using namespace ortho::ORTHO_LEVEL;
using Clock = std::chrono::steady_clock;
using Register = Vector<float>;

// Enough chains to hide the latency of a multiply-add (4 or 5 cycles, two a cycle), few enough for 16
// registers.
constexpr int chains = 12;
// Some 10 ms: long beside the start of a thread.
constexpr std::int64_t rounds = 5'000'000;

// Runs `work` on so many threads at once and returns the seconds until the last of them is done.
double seconds_of(std::int64_t threads, const std::function<void(std::int64_t)>& work) {
  const auto start = Clock::now();
  std::vector<std::thread> others;
  for (std::int64_t t = 1; t < threads; ++t) others.emplace_back(work, t);
  work(0);
  for (std::thread& other : others) other.join();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void multiply_add(float seed) {
  Register sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = broadcast(seed + static_cast<float>(i));
  Register factor = broadcast(0.999f), term = broadcast(1e-3f);
  for (std::int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + term;
  }
  Register total = sums[0];
  for (int i = 1; i < chains; ++i) total += sums[i];
  asm volatile("" : : "x"(total));
}

void read_all(const float* data, std::int64_t count) {
  Register sums[8] = {};
  for (std::int64_t i = 0; i + 8 * lanes<float> <= count; i += 8 * lanes<float>) {
#pragma GCC unroll 8
    for (int s = 0; s < 8; ++s) sums[s] += load<float>(data + i + s * lanes<float>);
  }
  Register total = sums[0];
  for (int s = 1; s < 8; ++s) total += sums[s];
  asm volatile("" : : "x"(total));
}

void copy_all(const float* data, float* target, std::int64_t count) {
  for (std::int64_t i = 0; i + lanes<float> <= count; i += lanes<float>)
    store_non_temporal(target + i, load<float>(data + i));
  fence_non_temporal();
}

}  // namespace

extern "C" {

// Floating-point operations a second, a multiply-add counted as two.
__attribute__((visibility("default"))) double float32_rate(std::int64_t threads) {
  const double seconds = seconds_of(threads, [](std::int64_t t) { multiply_add(static_cast<float>(t)); });
  return 2.0 * static_cast<double>(threads * rounds * chains * lanes<float>) / seconds;
}

// Bytes a second. `data` and `target` hold `count` floats each, aligned to 64 bytes and written to before.
__attribute__((visibility("default"))) double read_rate(std::int64_t threads, const float* data,
                                                        std::int64_t count) {
  const std::int64_t share = count / threads / 16 * 16;
  const double seconds = seconds_of(threads, [&](std::int64_t t) { read_all(data + t * share, share); });
  return static_cast<double>(4 * threads * share) / seconds;
}

// Bytes a second, those read and those written (past the caches) together.
__attribute__((visibility("default"))) double copy_rate(std::int64_t threads, const float* data,
                                                        float* target, std::int64_t count) {
  const std::int64_t share = count / threads / 16 * 16;
  const double seconds =
      seconds_of(threads, [&](std::int64_t t) { copy_all(data + t * share, target + t * share, share); });
  return static_cast<double>(8 * threads * share) / seconds;
}
}
