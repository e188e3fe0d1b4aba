// All that kernels use of the machine: the only place with PTX and intrinsics. The emulator of
// tests/emulation has the same functions in plain C++.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../matrix.h"

#define ORTHO_DEVICE __device__ __forceinline__
#define ORTHO_UNROLL _Pragma("unroll")
#define ORTHO_PRAGMA(text) _Pragma(#text)
#define ORTHO_UNROLL_BY(times) ORTHO_PRAGMA(unroll times)
// The arguments stay where the launch put them: threads index into them and no thread has a copy of its own.
#define ORTHO_KERNEL(threads, blocks, name, Arguments) \
  __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Arguments arguments)

namespace ortho::cuda {

ORTHO_DEVICE int thread_index() {
  const auto index = static_cast<int>(threadIdx.x);
  __builtin_assume(index >= 0);  // a division by a power of two is one shift
  return index;
}
ORTHO_DEVICE int block_index() { return static_cast<int>(blockIdx.x); }
ORTHO_DEVICE int block_count() { return static_cast<int>(gridDim.x); }
// The same number, not negative, of which the compiler does not know: what is made of it is not made before a
// loop and kept in registers that the loop needs.
ORTHO_DEVICE int computed_here(int number) {
  asm volatile("" : "+r"(number));
  __builtin_assume(number >= 0);
  return number;
}
ORTHO_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(128) unsigned char memory[];
  return memory;
}
#ifdef ORTHO_LOADERS
// Of the threads that compute: those that load for them (loaders.cuh) come to none.
ORTHO_DEVICE void block_barrier() { asm volatile("bar.sync 0, 256;" ::: "memory"); }
#else
ORTHO_DEVICE void block_barrier() { __syncthreads(); }
#endif
ORTHO_DEVICE void memory_fence() { __threadfence(); }
ORTHO_DEVICE std::uint32_t count_up(std::uint32_t* counter) { return atomicAdd(counter, 1u); }
ORTHO_DEVICE std::uint32_t read_counter(const std::uint32_t* counter) {
  return *const_cast<const volatile std::uint32_t*>(counter);
}
ORTHO_DEVICE void let_others_run() { __nanosleep(32); }
ORTHO_DEVICE float inverse_erf(float x) { return erfinvf(x); }

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

// 16 bytes that no thread writes while this kernel runs.
template <class T>
ORTHO_DEVICE T read_constant(const T* address) {
  static_assert(sizeof(T) == sizeof(uint4) && alignof(T) == alignof(uint4));
  const uint4 words = __ldg(reinterpret_cast<const uint4*>(address));
  T result;
  memcpy(&result, &words, sizeof(T));
  return result;
}

// 16 bytes or, where they are not valid, zeros. What is loaded goes to the registers it stays in: of a branch
// the compiler makes moves right behind the load, and those wait for it.
template <class T>
ORTHO_DEVICE T read_valid(const T* address, bool valid) {
  static_assert(sizeof(T) == sizeof(uint4) && alignof(T) == alignof(uint4));
  uint4 words;
  asm volatile(
      "{ .reg .pred valid; setp.ne.b32 valid, %5, 0; mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; "
      "mov.b32 %3, 0; @valid ld.global.v4.b32 {%0, %1, %2, %3}, [%4]; }"
      : "=&r"(words.x), "=&r"(words.y), "=&r"(words.z), "=&r"(words.w)
      : "l"(address), "r"(valid ? 1 : 0));
  T result;
  memcpy(&result, &words, sizeof(T));
  return result;
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

// No load of memory moves across this: what is loaded in front needs no registers beside what is loaded
// behind.
ORTHO_DEVICE void separate_loads() { __syncwarp(); }

// The same bits, but the compiler doesn't know: it keeps nothing that it made of them before.
ORTHO_DEVICE void renew(std::uint32_t& bits) { asm volatile("" : "+r"(bits)); }

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
ORTHO_DEVICE std::uint32_t to_float16_pair(float first, float second) {
  std::uint32_t result;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(second), "f"(first));
  return result;
}
ORTHO_DEVICE float16 to_float16(float number) {
  float16 result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(number));
  return result;
}
// NaN counts as no number.
ORTHO_DEVICE float larger_magnitude(float largest, float number) { return fmaxf(largest, fabsf(number)); }
ORTHO_DEVICE double square_root(double number) { return sqrt(number); }
// Each rounded once, whatever stands around it: the compiler would make one operation of a product and a sum.
ORTHO_DEVICE float add_rounded(float a, float b) { return __fadd_rn(a, b); }
ORTHO_DEVICE float multiply_rounded(float a, float b) { return __fmul_rn(a, b); }
ORTHO_DEVICE float multiply_add_rounded(float a, float b, float c) { return __fmaf_rn(a, b, c); }

// Four 8 x 8 blocks of 16-bit numbers out of shared memory. Lane l gives the address of row l % 8 of block
// l / 8, 16 bytes long. Of each block it gets two neighbors as one word: numbers 2 (l % 4) + {0, 1} of row
// l / 4; transposed, of column l / 4.
template <bool Transposed>
ORTHO_DEVICE void load_blocks(const void* row, std::uint32_t (&blocks)[4]) {
  const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(blocks[0]), "=r"(blocks[1]), "=r"(blocks[2]), "=r"(blocks[3])
                 : "r"(address));
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(blocks[0]), "=r"(blocks[1]), "=r"(blocks[2]), "=r"(blocks[3])
                 : "r"(address));
  }
}

// ---- tensor cores: sums += a b for the 16 x 8 block of a warp --------------------------------------------
//
// Lane l holds of the sums the entries (l / 4, 2 (l % 4) + {0, 1}) and, as its third and fourth, those eight
// rows below. Of a: rows l / 4 and l / 4 + 8; of b: column l / 4; how the depth is shared out is said at
// each.

// Depth 16, pairs of neighbors: lane l has k = 2 (l % 4) + {0, 1} and eight more; a[0], a[1]: both rows of
// the first, a[2], a[3] of the second.
template <class Half>
ORTHO_DEVICE void mma_16bit(float (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
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

// Depth 4: lane l has k = l % 4.
ORTHO_DEVICE void mma_fp64(double (&sums)[4], const double (&a)[2], double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+d"(sums[0]), "+d"(sums[1])
               : "d"(a[0]), "d"(b));
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
               : "+d"(sums[2]), "+d"(sums[3])
               : "d"(a[1]), "d"(b));
}

// ---- tensor cores of a warpgroup: four warps that are neighbors, from a multiple of four on (sm_90a) ------
//
// Both operands are panels in shared memory, in units of 16 bytes: eight numbers that are neighbors along the
// depth (or, transposed, eight neighboring vectors at one depth). Eight units behind each other are a block
// of 8 x 8 numbers, whose vectors or depths follow each other. What threads wrote there is seen after
// show_to_tensor_cores() and a barrier. Products run while the threads go on.
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#  define ORTHO_WARPGROUPS
#elif defined(ORTHO_LOADERS) && defined(__CUDA_ARCH__)
#  error "ORTHO_LOADERS is for sm_90a alone: TORCH_CUDA_ARCH_LIST=9.0"
#endif
#ifdef ORTHO_WARPGROUPS

// Where a panel begins and how far it is to the next eight vectors and to the next eight of the depth.
struct PanelPlace {
  std::uint64_t descriptor;
  ORTHO_DEVICE PanelPlace(const void* first, int vectors_bytes, int depth_bytes)
      : descriptor(
            static_cast<std::uint64_t>(static_cast<std::uint32_t>(__cvta_generic_to_shared(first)) >> 4) |
            static_cast<std::uint64_t>(depth_bytes >> 4) << 16 |
            static_cast<std::uint64_t>(vectors_bytes >> 4) << 32) {}
  // So many bytes behind it: a multiple of 16.
  ORTHO_DEVICE PanelPlace behind(int bytes) const {
    PanelPlace result = *this;
    result.descriptor += static_cast<std::uint64_t>(bytes >> 4);
    return result;
  }
};

ORTHO_DEVICE void show_to_tensor_cores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Before the first product of some sums.
ORTHO_DEVICE void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
ORTHO_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits for all products; the sums must not be looked at before.
template <int Count>
ORTHO_DEVICE void await_products(float (&sums)[Count]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  ORTHO_UNROLL
  for (float& sum : sums) asm volatile("" : "+f"(sum)::"memory");
}

// Barriers of some warps of a block, numbered from 1 to 15. sync_at() goes on when `threads` threads came;
// arrive_at() counts as one that came, and goes on at once.
ORTHO_DEVICE void sync_at(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
ORTHO_DEVICE void arrive_at(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// A warpgroup gives registers back, or waits for those that others gave: each thread has so many then.
template <int Registers>
ORTHO_DEVICE void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
ORTHO_DEVICE void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

#  define ORTHO_SUMS_8(first)                                                               \
    "+f"(sums[first]), "+f"(sums[first + 1]), "+f"(sums[first + 2]), "+f"(sums[first + 3]), \
        "+f"(sums[first + 4]), "+f"(sums[first + 5]), "+f"(sums[first + 6]), "+f"(sums[first + 7])
#  define ORTHO_SUMS_32(first) \
    ORTHO_SUMS_8(first), ORTHO_SUMS_8(first + 8), ORTHO_SUMS_8(first + 16), ORTHO_SUMS_8(first + 24)
#  define ORTHO_NAMES_32                                                                                   \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, " \
    "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#  define ORTHO_NAMES_64                                                                                     \
    ORTHO_NAMES_32                                                                                           \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, " \
    "%52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#  define ORTHO_MULTIPLY_64(format)                                                             \
    asm volatile(                                                                               \
        "{ .reg .pred adds; setp.ne.b32 adds, %34, 0; "                                         \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." format "." format " {" ORTHO_NAMES_32     \
        "}, %32, %33, adds, 1, 1, %35, %36; }"                                                  \
        : ORTHO_SUMS_32(0)                                                                      \
        : "l"(a.descriptor), "l"(b.descriptor), "r"(adds ? 1 : 0), "n"(LeftTransposed ? 1 : 0), \
          "n"(RightTransposed ? 1 : 0))
#  define ORTHO_MULTIPLY_128(format)                                                            \
    asm volatile(                                                                               \
        "{ .reg .pred adds; setp.ne.b32 adds, %66, 0; "                                         \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." format "." format " {" ORTHO_NAMES_64    \
        "}, %64, %65, adds, 1, 1, %67, %68; }"                                                  \
        : ORTHO_SUMS_32(0), ORTHO_SUMS_32(32)                                                   \
        : "l"(a.descriptor), "l"(b.descriptor), "r"(adds ? 1 : 0), "n"(LeftTransposed ? 1 : 0), \
          "n"(RightTransposed ? 1 : 0))

// Begins sums = a b (or += where it adds) for 64 vectors of a and so many of b, 16 of the depth. Warp w of
// the group has the rows 16 (w % 4) and on; its sums are as mma_16bit() has them, one block of columns after
// the other.
template <class Half, bool LeftTransposed, bool RightTransposed, int Count>
ORTHO_DEVICE void begin_product(float (&sums)[Count], PanelPlace a, PanelPlace b, bool adds) {
  constexpr bool is_bfloat16 = std::is_same_v<Half, bfloat16>;
  static_assert(Count == 32 || Count == 64);
  if constexpr (Count == 32) {
    if constexpr (is_bfloat16) {
      ORTHO_MULTIPLY_64("bf16");
    } else {
      ORTHO_MULTIPLY_64("f16");
    }
  } else {
    if constexpr (is_bfloat16) {
      ORTHO_MULTIPLY_128("bf16");
    } else {
      ORTHO_MULTIPLY_128("f16");
    }
  }
}

#endif

}  // namespace ortho::cuda
