// Vectors of float and double, and the conversions from and to the storage formats.
//
// Only compiler vector extensions (GCC >= 9, clang), but for what they lack, products of bfloat16 and
// non-temporal stores: the same source becomes SSE2, AVX2, AVX-512 or NEON by the flags it is compiled with.
// Everything here has internal linkage, so that no linker can ever hand code of one instruction level to
// another; the level sources therefore use nothing from std but types.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#  include <immintrin.h>
#endif

#include "../matrix.h"

#ifndef ORTHO_LEVEL
#  error "compile with -DORTHO_LEVEL=<name of the instruction level>"
#endif

#define ORTHO_INLINE inline __attribute__((always_inline))

namespace ortho::ORTHO_LEVEL {
namespace {

// The width of a register; the block of sums, so many rows of so many registers, that the register file holds
// beside what is multiplied; and how many bytes of the depth of every vector are multiplied at a time, so
// that the panels of a block fit L1. Each sum waits 4 cycles for the one before it, and two multiply-adds
// begin in each: fewer than 9 sums would leave gaps.
#if defined(__AVX512F__)
constexpr int vector_bytes = 64, block_rows = 8, block_vectors = 2, chunk_bytes = 1024;
#elif defined(__AVX__)
constexpr int vector_bytes = 32, block_rows = 4, block_vectors = 3, chunk_bytes = 768;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, block_rows = 8, block_vectors = 2, chunk_bytes = 1024;
#else
constexpr int vector_bytes = 16, block_rows = 4, block_vectors = 2, chunk_bytes = 1024;
#endif

template <class E, int N>
struct LanesOf {
  typedef E type __attribute__((vector_size(N * sizeof(E))));
};
template <class E, int N>
using Lanes = typename LanesOf<E, N>::type;

template <class T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));
template <class T>
using Vector = Lanes<T, lanes<T>>;

template <class To, class From>
ORTHO_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <class V>
ORTHO_INLINE V load_bits(const void* source) {
  V v;
  __builtin_memcpy(&v, source, sizeof(v));
  return v;
}

template <class T>
ORTHO_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // x - 0 is x for every x: no instruction is left of it
}

// ---- storage formats to float --------------------------------------------------------------------------

template <int N>
ORTHO_INLINE Lanes<float, N> to_float(Lanes<std::uint16_t, N> half, bfloat16) {
  return bits_as<Lanes<float, N>>(__builtin_convertvector(half, Lanes<std::uint32_t, N>) << 16);
}

// Exact for every float16, without relying on denormal floats (which a process may have switched off).
template <int N>
ORTHO_INLINE Lanes<float, N> to_float(Lanes<std::uint16_t, N> half, float16) {
  using Bits = Lanes<std::uint32_t, N>;
  using Float = Lanes<float, N>;
  constexpr std::uint32_t rebias = 112u << 23;
  const Bits wide = __builtin_convertvector(half, Bits);
  const Bits magnitude = (wide & 0x7fffu) << 13;
  const Bits small_mask = bits_as<Bits>((wide & 0x7c00u) == 0);
  const Bits special_mask = bits_as<Bits>((wide & 0x7c00u) == 0x7c00u);
  const Bits normal = magnitude + rebias + (special_mask & rebias);
  const Float small =
      __builtin_convertvector(bits_as<Lanes<std::int32_t, N>>(wide & 0x3ffu), Float) * 0x1p-24f;
  const Bits chosen = (small_mask & bits_as<Bits>(small)) | (~small_mask & normal);
  return bits_as<Float>(chosen | ((wide & 0x8000u) << 16));
}

// ---- float to storage formats, rounding to nearest even ------------------------------------------------

template <int N>
ORTHO_INLINE Lanes<std::uint16_t, N> from_float(Lanes<float, N> value, bfloat16) {
  using Bits = Lanes<std::uint32_t, N>;
  const Bits bits = bits_as<Bits>(value);
  const Bits nan_mask = bits_as<Bits>(value != value);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return __builtin_convertvector((nan_mask & 0x7fc0u) | (~nan_mask & rounded), Lanes<std::uint16_t, N>);
}

template <int N>
ORTHO_INLINE Lanes<std::uint16_t, N> from_float(Lanes<float, N> value, float16) {
  using Bits = Lanes<std::uint32_t, N>;
  using Float = Lanes<float, N>;
  constexpr std::uint32_t overflow = 143u << 23, smallest_normal = 113u << 23, infinity = 255u << 23;
  const Bits bits = bits_as<Bits>(value);
  const Bits magnitude = bits & 0x7fffffffu;
  const Bits normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  // Adding 0.5 leaves the rounded subnormal in the low bits of the sum.
  const Bits small = bits_as<Bits>(bits_as<Float>(magnitude) + 0.5f) - (126u << 23);
  const Bits nan_mask = bits_as<Bits>(magnitude > infinity);
  const Bits large_mask = bits_as<Bits>(magnitude >= overflow);
  const Bits small_mask = bits_as<Bits>(magnitude < smallest_normal);
  const Bits large = 0x7c00u | (nan_mask & 0x200u);
  const Bits finite = (small_mask & small) | (~small_mask & normal);
  const Bits chosen = (large_mask & large) | (~large_mask & finite);
  return __builtin_convertvector(chosen | ((bits >> 16) & 0x8000u), Lanes<std::uint16_t, N>);
}

// ---- non-temporal stores ------------------------------------------------------------------------------

// A number that is not read again soon: its store bypasses the caches.
template <class S>
struct NonTemporal {
  S number;
};
template <class S>
constexpr bool is_non_temporal = false;
template <class S>
constexpr bool is_non_temporal<NonTemporal<S>> = true;

template <class V>
ORTHO_INLINE void store_non_temporal(void* target, const V& value) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(target), bits_as<__m512i>(value));
#elif defined(__AVX__)
  _mm256_stream_si256(static_cast<__m256i*>(target), bits_as<__m256i>(value));
#elif defined(__x86_64__)
  _mm_stream_si128(static_cast<__m128i*>(target), bits_as<__m128i>(value));
#else
  __builtin_memcpy(target, &value, sizeof(value));
#endif
}

// Whether lines `stride` numbers apart can be written so, from `target` on.
template <class T, class S>
bool can_store_non_temporal(const S* target, std::int64_t stride) {
  const auto place = reinterpret_cast<std::uint64_t>(target);
  const auto bytes = static_cast<std::uint64_t>(stride) * sizeof(S);
  return std::is_same_v<S, T> && (place | bytes) % vector_bytes == 0;
}

// Before other threads read what these stores wrote.
ORTHO_INLINE void fence_non_temporal() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// ---- memory <-> vectors --------------------------------------------------------------------------------

template <class S>
constexpr bool is_half = std::is_same_v<S, bfloat16> || std::is_same_v<S, float16>;

template <class T, class S>
ORTHO_INLINE Vector<T> load(const S* source) {
  constexpr int n = lanes<T>;
  if constexpr (std::is_same_v<S, T>) {
    return load_bits<Vector<T>>(source);
  } else if constexpr (is_half<S>) {
    const Lanes<float, n> value = to_float<n>(load_bits<Lanes<std::uint16_t, n>>(source), S{});
    if constexpr (std::is_same_v<T, float>) {
      return value;
    } else {
      return __builtin_convertvector(value, Vector<T>);
    }
  } else {
    return __builtin_convertvector(load_bits<Lanes<S, n>>(source), Vector<T>);
  }
}

template <class S, class T>
ORTHO_INLINE void store(S* target, Vector<T> value) {
  constexpr int n = lanes<T>;
  if constexpr (std::is_same_v<S, T>) {
    __builtin_memcpy(target, &value, sizeof(value));
  } else if constexpr (is_non_temporal<S>) {
    store_non_temporal(target, value);
  } else if constexpr (is_half<S>) {
    const auto half = from_float<n>(__builtin_convertvector(value, Lanes<float, n>), S{});
    __builtin_memcpy(target, &half, sizeof(half));
  } else {
    const auto converted = __builtin_convertvector(value, Lanes<S, n>);
    __builtin_memcpy(target, &converted, sizeof(converted));
  }
}

// The first `count` < lanes numbers, the others zero; nothing beyond them is touched.
template <class T, class S>
ORTHO_INLINE Vector<T> load_some(const S* source, std::int64_t count) {
  S padded[lanes<T>] = {};
  for (std::int64_t i = 0; i < count; ++i) padded[i] = source[i];
  return load<T>(padded);
}

template <class S, class T>
ORTHO_INLINE void store_some(S* target, Vector<T> value, std::int64_t count) {
  if constexpr (is_non_temporal<S>) {
    store_some<decltype(target->number), T>(&target->number, value, count);
  } else {
    S padded[lanes<T>];
    store<S, T>(padded, value);
    for (std::int64_t i = 0; i < count; ++i) target[i] = padded[i];
  }
}

template <class T, class S>
ORTHO_INLINE T load_one(const S* source) {
  return load_some<T>(source, 1)[0];
}

template <class T>
ORTHO_INLINE T sum_of_lanes(Vector<T> v) {
  T sum = 0;
  for (int i = 0; i < lanes<T>; ++i) sum += v[i];
  return sum;
}

// Calls body with a number of the storage format; float arithmetic never meets float64 storage.
template <class T, class Body>
ORTHO_INLINE auto with_storage(Storage storage, const Body& body) {
  switch (storage) {
    case Storage::float64:
      if constexpr (std::is_same_v<T, double>) return body(double{});
      break;
    case Storage::float32:
      return body(float{});
    case Storage::bfloat16:
      return body(bfloat16{});
    case Storage::float16:
      return body(float16{});
  }
  __builtin_unreachable();
}

// target[c * stride] = scale * values[c]; += to accumulate.
template <class S, class T>
ORTHO_INLINE void write_line(S* target, std::int64_t stride, const T* values, std::int64_t count, T scale,
                             bool accumulate) {
  const Vector<T> factor = broadcast(scale);
  const auto put = [&](S* place, Vector<T> value) {
    if constexpr (!is_non_temporal<S>) {
      if (accumulate) value += load<T>(place);
    }
    store<S, T>(place, value);
  };
  const auto put_some = [&](S* place, Vector<T> value, std::int64_t some) {
    if constexpr (!is_non_temporal<S>) {
      if (accumulate) value += load_some<T>(place, some);
    }
    store_some<S, T>(place, value, some);
  };
  std::int64_t c = 0;
  if (stride == 1) {
    for (; c + lanes<T> <= count; c += lanes<T>) put(target + c, load<T>(values + c) * factor);
    if (c < count) put_some(target + c, load_some<T>(values + c, count - c) * factor, count - c);
  } else {
    for (; c < count; ++c) put_some(target + c * stride, broadcast(values[c] * scale), 1);
  }
}

// ---- pairs of bfloat16 ---------------------------------------------------------------------------------

#ifdef __AVX512BF16__
// out[i] = the pair of even[i] and odd[i], rounded to bfloat16.
ORTHO_INLINE void store_bfloat_pairs(std::uint32_t* out, Vector<float> even, Vector<float> odd) {
  using Bits16 = Lanes<std::uint16_t, lanes<float>>;
  using Bits = Lanes<std::uint32_t, lanes<float>>;
  const auto rounded = [](Vector<float> value) {
    return __builtin_convertvector(bits_as<Bits16>(_mm512_cvtneps_pbh(bits_as<__m512>(value))), Bits);
  };
  const Bits pairs = rounded(even) | (rounded(odd) << 16);
  __builtin_memcpy(out, &pairs, sizeof(pairs));
}

// sum[i] += the two products of `factor` and entries[i], pairs both.
ORTHO_INLINE Vector<float> add_bfloat_products(std::uint32_t factor, const std::uint32_t* entries,
                                               Vector<float> sum) {
  const auto pair = bits_as<__m512bh>(_mm512_set1_epi32(static_cast<int>(factor)));
  const auto pairs = bits_as<__m512bh>(_mm512_loadu_si512(entries));
  return bits_as<Vector<float>>(_mm512_dpbf16_ps(bits_as<__m512>(sum), pair, pairs));
}
#endif

// ---- transposition of a square of vectors, in registers ------------------------------------------------

template <class V, int... I>
ORTHO_INLINE V shuffle(V a, V b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, I...);
#else
  using Index = Lanes<std::conditional_t<sizeof(a[0]) == 4, std::int32_t, std::int64_t>, sizeof...(I)>;
  return __builtin_shuffle(a, b, Index{I...});
#endif
}

// Swaps the off-diagonal squares of width `Distance` between two rows that are `Distance` apart.
template <int Distance, class V, int... Lane>
ORTHO_INLINE void exchange(V& upper, V& lower, std::integer_sequence<int, Lane...>) {
  constexpr int n = sizeof...(Lane);
  const V a = upper, b = lower;
  upper = shuffle<V, ((Lane & Distance) ? n + Lane - Distance : Lane)...>(a, b);
  lower = shuffle<V, ((Lane & Distance) ? n + Lane : Lane + Distance)...>(a, b);
}

template <class T, int Distance = lanes<T> / 2>
ORTHO_INLINE void transpose(Vector<T> (&rows)[lanes<T>]) {
  if constexpr (Distance > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < lanes<T>; ++i) {
      if ((i & Distance) == 0) {
        exchange<Distance>(rows[i], rows[i + Distance], std::make_integer_sequence<int, lanes<T>>());
      }
    }
    transpose<T, Distance / 2>(rows);
  }
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
