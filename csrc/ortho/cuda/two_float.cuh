// Sums of float32 numbers with twice float's digits, where double is slow. A number is the sum of two floats:
// what rounding takes from a product or a sum is computed and kept (Ogita, Rump and Oishi, Accurate sum and
// dot product, SIAM Journal on Scientific Computing, 2005: Dot2).
#pragma once

#include "device.cuh"

namespace ortho::cuda {

struct alignas(8) TwoFloat {
  float high = 0, low = 0;

  TwoFloat() = default;
  ORTHO_DEVICE TwoFloat(float high_part, float low_part) : high(high_part), low(low_part) {}
  ORTHO_DEVICE explicit TwoFloat(double number)
      : high(static_cast<float>(number)), low(static_cast<float>(number - static_cast<double>(high))) {}
  ORTHO_DEVICE explicit operator double() const {
    return static_cast<double>(high) + static_cast<double>(low);
  }

  // Without error: what the rounded sum lost goes to the low part (Knuth's TwoSum).
  ORTHO_DEVICE TwoFloat& operator+=(float number) {
    const float sum = add_rounded(high, number);
    const float given = add_rounded(sum, -high);
    low = add_rounded(low,
                      add_rounded(add_rounded(high, -add_rounded(sum, -given)), add_rounded(number, -given)));
    high = sum;
    return *this;
  }
  ORTHO_DEVICE TwoFloat& operator+=(const TwoFloat& number) {
    *this += number.high;
    low = add_rounded(low, number.low);
    return *this;
  }
};

// sum += entry x factor.
ORTHO_DEVICE void add_product(double& sum, double entry, double factor) { sum += entry * factor; }
ORTHO_DEVICE void add_product(TwoFloat& sum, float entry, const TwoFloat& factor) {
  const float product = multiply_rounded(entry, factor.high);
  const float lost = multiply_add_rounded(entry, factor.high, -product);
  sum += TwoFloat(product, multiply_add_rounded(entry, factor.low, lost));
}

// What an entry of a weight is multiplied as, where sums are of type T.
template <class T>
using EntryOf = std::conditional_t<std::is_same_v<T, TwoFloat>, float, T>;

ORTHO_DEVICE TwoFloat shuffle_xor(const TwoFloat& number, int lanes) {
  return {shuffle_xor(number.high, lanes), shuffle_xor(number.low, lanes)};
}

ORTHO_DEVICE TwoFloat read_past_l1(const TwoFloat* address) {
  TwoFloat number;
  read_pair_past_l1(&address->high, number.high, number.low);
  return number;
}

}  // namespace ortho::cuda
