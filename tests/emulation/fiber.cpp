#include "fiber.h"

#include <cstring>

#include "races.h"

#if !defined(__x86_64__)
#  error "the emulator switches between threads by x86-64 instructions"
#endif

#if defined(__SANITIZE_ADDRESS__)
#  include <sanitizer/asan_interface.h>
#  include <sanitizer/common_interface_defs.h>
#endif

// Saves what a call must preserve on the stack in use, stores its pointer, and goes on where `to` was saved.
extern "C" void emulator_switch(void** from, void* to);
extern "C" void emulator_first_entry();
asm(R"(
.text
.globl emulator_switch
.type emulator_switch, @function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch

.globl emulator_first_entry
.type emulator_first_entry, @function
emulator_first_entry:
  movq %r12, %rdi
  call *%rbx
  ud2
.size emulator_first_entry, .-emulator_first_entry
)");

namespace emulator {
namespace {

void* scheduler_pointer = nullptr;
void* watched_scheduler = nullptr;

// AddressSanitizer needs to know which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::size_t stack_bytes = 512 * 1024;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
void start_switch(void** fake, const void* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void finish_switch(void* fake, const void** from, std::size_t* bytes) {
  __sanitizer_finish_switch_fiber(fake, from, bytes);
}
// What ended there for good left its frames marked.
void forget_frames(void* stack) { __asan_unpoison_memory_region(stack, stack_bytes); }
#else
constexpr std::size_t stack_bytes = 64 * 1024;
const void* const scheduler_stack = nullptr;
constexpr std::size_t scheduler_stack_bytes = 0;
void start_switch(void**, const void*, std::size_t) {}
void finish_switch(void*, const void* const*, const std::size_t*) {}
void forget_frames(void*) {}
#endif

}  // namespace

Fiber::Fiber() : stack_(new unsigned char[stack_bytes]), watched_(races::new_fiber()) {}
Fiber::~Fiber() { races::end_fiber(watched_); }

void Fiber::prepare(void (*entry)(void*), void* argument) {
  forget_frames(stack_.get());
  const auto top = (reinterpret_cast<std::uintptr_t>(stack_.get()) + stack_bytes) & ~std::uintptr_t{15};
  // As emulator_switch leaves a stack: r15, r14, r13, r12, rbx, rbp, the address to return to; then aligned.
  auto* frame = reinterpret_cast<std::uintptr_t*>(top) - 9;
  std::memset(frame, 0, 9 * sizeof(*frame));
  frame[3] = reinterpret_cast<std::uintptr_t>(argument);
  frame[4] = reinterpret_cast<std::uintptr_t>(entry);
  frame[6] = reinterpret_cast<std::uintptr_t>(&emulator_first_entry);
  stack_pointer_ = frame;
}

void Fiber::enter() {
  void* fake = nullptr;
  start_switch(&fake, stack_.get(), stack_bytes);
  watched_scheduler = races::this_fiber();
  races::switch_to(watched_);
  emulator_switch(&scheduler_pointer, stack_pointer_);
  finish_switch(fake, nullptr, nullptr);
}

void Fiber::arrived() { finish_switch(nullptr, &scheduler_stack, &scheduler_stack_bytes); }

void Fiber::leave(bool for_good) {
  void* fake = nullptr;
  start_switch(for_good ? nullptr : &fake, scheduler_stack, scheduler_stack_bytes);
  races::switch_to(watched_scheduler);
  emulator_switch(&stack_pointer_, scheduler_pointer);
  finish_switch(fake, &scheduler_stack, &scheduler_stack_bytes);
}

}  // namespace emulator
