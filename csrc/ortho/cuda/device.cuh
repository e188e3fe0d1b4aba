// All that kernels use of the machine: the only place with PTX and intrinsics. Each function has a twin in
// plain C++ for the emulator of tests/emulation, which runs the kernels without a GPU.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../matrix.h"

#ifdef ORTHO_EMULATED
#  include "emulator.h"
#  define ORTHO_DEVICE inline
#  define ORTHO_UNROLL
#  define ORTHO_UNROLL_BY(times)
#  define ORTHO_KERNEL(threads, blocks, name, Arguments) void name(const Arguments& arguments)
#else
#  define ORTHO_DEVICE __device__ __forceinline__
#  define ORTHO_UNROLL _Pragma("unroll")
#  define ORTHO_PRAGMA(text) _Pragma(#text)
#  define ORTHO_UNROLL_BY(times) ORTHO_PRAGMA(unroll times)
// The arguments stay where the launch put them: threads index into them and no thread has a copy of its own.
#  define ORTHO_KERNEL(threads, blocks, name, Arguments) \
    __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments arguments)
#endif

namespace ortho::cuda {

constexpr int warp_size = 32;

// Whether an index lies inside of something of that size: every guard of memory is one of these.
ORTHO_DEVICE bool within(std::int64_t index, std::int64_t size) { return index < size; }

#ifdef ORTHO_EMULATED

inline int thread_index() { return emulator::thread_index(); }
inline int block_index() { return emulator::block_index(); }
inline int block_count() { return emulator::block_count(); }
inline unsigned char* shared_memory() { return emulator::shared_memory(); }
inline void block_barrier(int line = __builtin_LINE()) { emulator::block_barrier(line); }
inline void memory_fence() { emulator::memory_fence(); }
// The counter's value before.
inline std::uint32_t count_up(std::uint32_t* counter) { return emulator::count_up(counter); }
inline std::uint32_t read_counter(const std::uint32_t* counter) { return emulator::read_counter(counter); }
// Of a loop that waits for another block.
inline void let_others_run() { emulator::let_others_run(); }

template <class T>
T shuffle_xor(T value, int lanes) {
  return emulator::exchange<T, T>(0xffffffffu, value,
                                  [&](const T* all, int lane) { return all[lane ^ lanes]; });
}

template <class T>
T read_past_l1(const T* address) {
  return *address;
}
inline void read_pair_past_l1(const float* pair, float& first, float& second) {
  first = pair[0];
  second = pair[1];
}

template <int Bytes>
void copy_async(void* target, const void* source, bool valid) {
  emulator::copy_async(target, source, Bytes, valid);
}
inline void commit_copies() { emulator::commit_copies(); }
template <int Groups>
void await_copies() {
  emulator::await_copies(Groups);
}

inline float bits_as_float(std::uint32_t bits) { return emulator::bits_as<float>(bits); }
inline std::uint32_t float_as_bits(float number) { return emulator::bits_as<std::uint32_t>(number); }
inline float to_float(bfloat16 number) { return bits_as_float(std::uint32_t{number.bits} << 16); }
inline float to_float(float16 number) { return emulator::float_from_half(number.bits); }
inline bfloat16 to_bfloat16(float number) { return {emulator::bfloat_from_float(number)}; }
inline std::uint32_t to_bfloat16_pair(float first, float second) {
  return emulator::bfloat_from_float(first) | std::uint32_t{emulator::bfloat_from_float(second)} << 16;
}
inline float16 to_float16(float number) { return {emulator::half_from_float(number)}; }
inline std::uint32_t round_to_tf32(float number) {
  return emulator::round_to_tf32(emulator::bits_as<std::uint32_t>(number));
}
inline double square_root(double number) { return emulator::square_root(number); }
inline float add_rounded(float a, float b) { return emulator::add(a, b); }
inline float multiply_rounded(float a, float b) { return emulator::multiply(a, b); }
inline float multiply_add_rounded(float a, float b, float c) { return emulator::multiply_add(a, b, c); }

#else

ORTHO_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
ORTHO_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
ORTHO_DEVICE int block_count() { return static_cast<int>(gridDim.x); }
ORTHO_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}
ORTHO_DEVICE void block_barrier() { __syncthreads(); }
ORTHO_DEVICE void memory_fence() { __threadfence(); }
ORTHO_DEVICE std::uint32_t count_up(std::uint32_t* counter) { return atomicAdd(counter, 1u); }
ORTHO_DEVICE std::uint32_t read_counter(const std::uint32_t* counter) {
  return *const_cast<const volatile std::uint32_t*>(counter);
}
ORTHO_DEVICE void let_others_run() { __nanosleep(32); }

template <class T>
ORTHO_DEVICE T shuffle_xor(T value, int lanes) {
  return __shfl_xor_sync(0xffffffffu, value, lanes);
}

// What other blocks wrote while this kernel runs may be out of date in L1.
template <class T>
ORTHO_DEVICE T read_past_l1(const T* address) {
  return __ldcg(address);
}
ORTHO_DEVICE void read_pair_past_l1(const float* pair, float& first, float& second) {
  const float2 both = __ldcg(reinterpret_cast<const float2*>(pair));
  first = both.x;
  second = both.y;
}

// Copies to shared memory without waiting: all of the bytes or, where they are not valid, zeros.
template <int Bytes>
ORTHO_DEVICE void copy_async(void* target, const void* source, bool valid) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(target));
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(source),
                 "r"(valid ? Bytes : 0)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(source), "n"(Bytes),
                 "r"(valid ? Bytes : 0)
                 : "memory");
  }
}
ORTHO_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until all groups of this thread's copies but the last `Groups` are there.
template <int Groups>
ORTHO_DEVICE void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

ORTHO_DEVICE float bits_as_float(std::uint32_t bits) { return __uint_as_float(bits); }
ORTHO_DEVICE std::uint32_t float_as_bits(float number) { return __float_as_uint(number); }
ORTHO_DEVICE float to_float(bfloat16 number) { return __uint_as_float(std::uint32_t{number.bits} << 16); }
ORTHO_DEVICE float to_float(float16 number) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(number.bits));
  return result;
}
ORTHO_DEVICE bfloat16 to_bfloat16(float number) {
  bfloat16 result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(number));
  return result;
}
ORTHO_DEVICE std::uint32_t to_bfloat16_pair(float first, float second) {
  std::uint32_t result;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  return result;
}
ORTHO_DEVICE float16 to_float16(float number) {
  float16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(number));
  return result;
}
ORTHO_DEVICE std::uint32_t round_to_tf32(float number) {
  std::uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(number));
  return result;
}
ORTHO_DEVICE double square_root(double number) { return sqrt(number); }
// Each rounded once, whatever stands around it: the compiler would make one operation of a product and a sum.
ORTHO_DEVICE float add_rounded(float a, float b) { return __fadd_rn(a, b); }
ORTHO_DEVICE float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
ORTHO_DEVICE float multiply_add_rounded(float a, float b, float c) { return __fmaf_rn(a, b, c); }

#endif

// ---- numbers ---------------------------------------------------------------------------------------------

template <class T, class S>
ORTHO_DEVICE T number_from(S stored) {
  if constexpr (std::is_same_v<S, bfloat16> || std::is_same_v<S, float16>) {
    return static_cast<T>(to_float(stored));
  } else {
    return static_cast<T>(stored);
  }
}

template <class S, class T>
ORTHO_DEVICE S stored_from(T number) {
  if constexpr (std::is_same_v<S, bfloat16>) {
    return to_bfloat16(static_cast<float>(number));
  } else if constexpr (std::is_same_v<S, float16>) {
    return to_float16(static_cast<float>(number));
  } else {
    return static_cast<S>(number);
  }
}

template <class S, class T>
ORTHO_DEVICE void write_gradient(S* target, T number, bool add) {
  *target = stored_from<S>(add ? number_from<T>(*target) + number : number);
}

// ---- tensor cores: sums += a b for the 16 x 8 block of a warp --------------------------------------------
//
// Lane l holds of the sums the entries (l / 4, 2 (l % 4) + {0, 1}) and, as its third and fourth, those eight
// rows below. Of a: rows l / 4 and l / 4 + 8; of b: column l / 4; how the depth is shared out is said at
// each.

#ifdef ORTHO_EMULATED

namespace twin {

template <class Number, int ACount, int BCount>
struct Fragments {
  Number a[ACount], b[BCount];
};

// a(all, row, k) and b(all, k, column) look an operand up in the fragments of all lanes.
template <int Depth, class Fragment, class Sum, class A, class B>
void multiply_add(const Fragment& mine, Sum (&sums)[4], const A& a, const B& b) {
  struct Result {
    Sum sums[4];
  };
  const Result result =
      emulator::exchange<Fragment, Result>(0xffffffffu, mine, [&](const Fragment* all, int lane) {
        Result r;
        for (int e = 0; e < 4; ++e) {
          const int row = lane / 4 + 8 * (e / 2), column = 2 * (lane % 4) + e % 2;
          double products[Depth];
          for (int k = 0; k < Depth; ++k) products[k] = double{a(all, row, k)} * double{b(all, k, column)};
          r.sums[e] = emulator::add_products(sums[e], products, Depth);
        }
        return r;
      });
  for (int e = 0; e < 4; ++e) sums[e] = result.sums[e];
}

}  // namespace twin

// Depth 8: lane l has k = l % 4 and l % 4 + 4; a[0], a[1]: both rows of the first, a[2], a[3] of the second.
inline void multiply_tf32(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  using Fragment = twin::Fragments<std::uint32_t, 4, 2>;
  const Fragment mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto number = [](std::uint32_t bits) { return bits_as_float(bits & 0xffffe000u); };
  twin::multiply_add<8>(
      mine, sums,
      [&](const Fragment* all, int row, int k) {
        return number(all[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2]);
      },
      [&](const Fragment* all, int k, int column) { return number(all[column * 4 + k % 4].b[k / 4]); });
}

// Depth 16, pairs of neighbors: lane l has k = 2 (l % 4) + {0, 1} and eight more; the order of a as above.
template <class Half>
void multiply_halves(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  using Fragment = twin::Fragments<std::uint32_t, 4, 2>;
  const Fragment mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const auto number = [](std::uint32_t pair, int k) {
    return to_float(Half{static_cast<std::uint16_t>(pair >> (16 * (k % 2)))});
  };
  twin::multiply_add<16>(
      mine, sums,
      [&](const Fragment* all, int row, int k) {
        return number(all[row % 8 * 4 + k % 8 / 2].a[row / 8 + k / 8 * 2], k);
      },
      [&](const Fragment* all, int k, int column) {
        return number(all[column * 4 + k % 8 / 2].b[k / 8], k);
      });
}

// Depth 4: lane l has k = l % 4.
inline void multiply_double(double (&sums)[4], const double (&a)[2], double b) {
  using Fragment = twin::Fragments<double, 2, 1>;
  const Fragment mine{{a[0], a[1]}, {b}};
  twin::multiply_add<4>(
      mine, sums, [](const Fragment* all, int row, int k) { return all[row % 8 * 4 + k].a[row / 8]; },
      [](const Fragment* all, int k, int column) { return all[column * 4 + k].b[0]; });
}

#else

ORTHO_DEVICE void multiply_tf32(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <class Half>
ORTHO_DEVICE void multiply_halves(float (&sums)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<Half, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

ORTHO_DEVICE void multiply_double(double (&sums)[4], const double (&a)[2], double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+d"(sums[0]), "+d"(sums[1])
               : "d"(a[0]), "d"(b));
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+d"(sums[2]), "+d"(sums[3])
               : "d"(a[1]), "d"(b));
}

#endif

}  // namespace ortho::cuda
