// Magnitudes and signs of vectors, and the larger of two. NaN stays.
#pragma once

#include "simd.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class V>
using BitsOf = std::conditional_t<sizeof(V{}[0]) == 4, Lanes<std::uint32_t, sizeof(V) / 4>,
                                  Lanes<std::uint64_t, sizeof(V) / 8>>;
template <class V>
constexpr auto sign_bit = std::uint64_t{1} << (8 * sizeof(V{}[0]) - 1);

template <class V, class Mask>
ORTHO_INLINE V select(Mask mask, V chosen, V other) {
  const auto bits = bits_as<BitsOf<V>>(mask);
  return bits_as<V>((bits & bits_as<BitsOf<V>>(chosen)) | (~bits & bits_as<BitsOf<V>>(other)));
}

template <class V>
ORTHO_INLINE V magnitude(V x) {
  return bits_as<V>(bits_as<BitsOf<V>>(x) & ~(BitsOf<V>{} + sign_bit<V>));
}

// 0 of 0.
template <class V>
ORTHO_INLINE V sign(V x) {
  const V one = 1 - V{};
  const V signed_one =
      bits_as<V>(bits_as<BitsOf<V>>(one) | (bits_as<BitsOf<V>>(x) & (BitsOf<V>{} + sign_bit<V>)));
  return select((x == V{}) | (x != x), x, signed_one);
}

template <class V>
ORTHO_INLINE V larger(V a, V b) {
  return select((b > a) | (b != b), b, a);
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
