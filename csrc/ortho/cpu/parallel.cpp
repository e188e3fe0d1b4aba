#include "parallel.h"

#include <cstdlib>
#include <memory>
#include <new>

namespace ortho {
namespace {

constexpr std::size_t page = 4096;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct ThreadMemory {
  std::unique_ptr<void, Free> memory;
  std::size_t bytes = 0;
};

}  // namespace

void* scratch(std::size_t bytes) {
  thread_local ThreadMemory own;
  if (own.bytes < bytes) {
    own.memory.reset();
    own.bytes = 0;
    const std::size_t rounded = (bytes + page - 1) / page * page;
    own.memory.reset(std::aligned_alloc(page, rounded));
    if (!own.memory) throw std::bad_alloc();
    own.bytes = rounded;
  }
  return own.memory.get();
}

}  // namespace ortho
