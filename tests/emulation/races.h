// Describes fibers to ThreadSanitizer, where it is loaded: each is a thread. Only the barriers of a block and
// the counters of a grid order what two of them do. A collective of a warp does not, as CUDA promises no
// order of memory for it.
#pragma once

extern "C" {
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* at);
__attribute__((weak)) void __tsan_release(void* at);
__attribute__((weak)) void AnnotateIgnoreReadsBegin(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreReadsEnd(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesBegin(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesEnd(const char* file, int line);
}

namespace emulator::races {

inline bool are_watched() { return __tsan_create_fiber != nullptr; }

// What came before release(at) of one fiber comes before what follows acquire(at) of another.
inline void release(void* at) {
  if (are_watched()) __tsan_release(at);
}
inline void acquire(void* at) {
  if (are_watched()) __tsan_acquire(at);
}

inline void* new_fiber() { return are_watched() ? __tsan_create_fiber(0) : nullptr; }
inline void* this_fiber() { return are_watched() ? __tsan_get_current_fiber() : nullptr; }
inline void end_fiber(void* fiber) {
  if (fiber) __tsan_destroy_fiber(fiber);
}
inline void switch_to(void* fiber) {
  constexpr unsigned without_order = 1;
  if (fiber) __tsan_switch_to_fiber(fiber, without_order);
}

// While one exists, ThreadSanitizer ignores its fiber: what it does is the emulator's own.
class Ignored {
 public:
  Ignored() {
    if (!are_watched()) return;
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Ignored() {
    if (!are_watched()) return;
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Ignored(const Ignored&) = delete;
  Ignored& operator=(const Ignored&) = delete;
};

}  // namespace emulator::races
