// Shares the items of a plan over threads. Which thread runs which item is left to chance; no result depends
// on it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ortho {

// The threads of the caller: torch's, or those of a test.
class Workers {
 public:
  virtual ~Workers() = default;
  virtual std::int64_t count() const = 0;
  // Calls run(context, w) for w = 0 ... workers - 1, each once, at the same time or one after the other.
  virtual void start(std::int64_t workers, void (*run)(void* context), void* context) = 0;
};

// Memory of the calling thread, kept from call to call and freed with the thread; aligned to a page.
void* scratch(std::size_t bytes);

// Calls body(i, memory) for i = 0 ... items - 1, each once. Every worker takes the next item as soon as it is
// free, so put the largest first. `work` is a rough number of operations: what is tiny stays on the calling
// thread.
template <class Body>
void for_each_item(Workers& workers, std::int64_t items, double work, std::size_t memory_bytes,
                   const Body& body) {
  constexpr double worth_a_thread = 100'000;
  const std::int64_t wanted =
      std::min<std::int64_t>(items, static_cast<std::int64_t>(work / worth_a_thread) + 1);
  struct Shared {
    std::atomic<std::int64_t> next{0};
    std::int64_t items;
    std::size_t memory_bytes;
    const Body& body;
  } shared{{0}, items, memory_bytes, body};
  const auto run = [](void* context) {
    Shared& s = *static_cast<Shared*>(context);
    std::int64_t item = s.next.fetch_add(1, std::memory_order_relaxed);
    if (item >= s.items) return;
    void* memory = scratch(s.memory_bytes);
    for (; item < s.items; item = s.next.fetch_add(1, std::memory_order_relaxed)) s.body(item, memory);
  };
  const std::int64_t count = std::min(wanted, workers.count());
  if (count > 1) {
    workers.start(count, run, &shared);
  } else {
    run(&shared);
  }
}

}  // namespace ortho
