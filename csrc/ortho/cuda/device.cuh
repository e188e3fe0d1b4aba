// What all kernels build on: the functions of the machine, the hardware's or the emulator's, and conversions.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../matrix.h"

#ifdef ORTHO_EMULATED
#  include "emulated_intrinsics.h"  // of tests/emulation
#else
#  include "intrinsics.cuh"
#endif

namespace ortho::cuda {

constexpr int warp_size = 32;

// Whether an index is inside something of that size: every guard of memory is one of these.
ORTHO_DEVICE bool within(std::int64_t index, std::int64_t size) { return index < size; }

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

// Two numbers of a 16-bit format in one word, the first in its low half.
template <class Half>
ORTHO_DEVICE std::uint32_t to_pair(float first, float second) {
  return std::is_same_v<Half, bfloat16> ? to_bfloat16_pair(first, second) : to_float16_pair(first, second);
}
template <class Half>
ORTHO_DEVICE float first_of_pair(std::uint32_t pair) {
  if constexpr (std::is_same_v<Half, bfloat16>) return bits_as_float(pair << 16);
  return to_float(float16{static_cast<std::uint16_t>(pair)});
}
template <class Half>
ORTHO_DEVICE float second_of_pair(std::uint32_t pair) {
  if constexpr (std::is_same_v<Half, bfloat16>) return bits_as_float(pair & 0xffff0000u);
  return to_float(float16{static_cast<std::uint16_t>(pair >> 16)});
}

template <class S, class T>
ORTHO_DEVICE void write_gradient(S* target, T number, bool accumulate) {
  *target = stored_from<S>(accumulate ? number_from<T>(*target) + number : number);
}

}  // namespace ortho::cuda
