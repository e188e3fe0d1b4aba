// A fiber: a function with a stack of its own that can stop halfway and be taken up again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace emulator {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  // Prepares to run entry(argument), which must never return: it ends by leaving for good.
  void prepare(void (*entry)(void*), void* argument);
  void enter();               // from the scheduler: runs until the fiber leaves
  void leave(bool for_good);  // from the fiber
  static void arrived();      // first thing that a new fiber does

 private:
  std::unique_ptr<unsigned char[]> stack_;
  void* stack_pointer_ = nullptr;
  void* watched_ = nullptr;  // by a race detector
};

}  // namespace emulator
