#include "arithmetic.h"

#include <algorithm>
#include <cmath>

#include "emulator.h"

namespace emulator {

float float_from_half(std::uint16_t bits) { return static_cast<float>(bits_as<_Float16>(bits)); }

std::uint16_t half_from_float(float number) { return bits_as<std::uint16_t>(static_cast<_Float16>(number)); }

std::uint16_t bfloat_from_float(float number) {
  const auto bits = bits_as<std::uint32_t>(number);
  if (std::isnan(number)) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

namespace {

// The largest power of two that isn't above |number|; 0 for zero and for what no float comes near.
double leading_bit(double number) {
  const double power = bits_as<double>(bits_as<std::uint64_t>(number) & 0x7ff0000000000000u);
  return power < 1e-300 ? 0 : power;
}

float toward_zero(double number) {
  const auto nearest = static_cast<float>(number);
  return std::fabs(double{nearest}) > std::fabs(number) ? std::nextafter(nearest, 0.0f) : nearest;
}

// NVIDIA's tensor cores, as measured by Fasi, Higham, Mikaitis and Pranesh (Numerical behavior of NVIDIA
// tensor cores, PeerJ Computer Science, 2021): products and sum are aligned to the largest of them and cut
// off below float's 24 bits and one more; their sum is cut off at 24. That is Ampere, which takes half of an
// instruction's depth at a time; Hopper keeps at least as much.
float add_truncating(float sum, const double* products, int count) {
  double largest = leading_bit(sum), exact = sum;
  for (int k = 0; k < count; ++k) {
    largest = std::max(largest, leading_bit(products[k]));
    exact += products[k];
  }
  if (largest == 0 || !std::isfinite(exact)) return static_cast<float>(exact);
  const double unit = largest / (1 << 24);
  const auto units = [&](double number) { return std::trunc(number / unit); };
  double total = units(sum);
  for (int k = 0; k < count; ++k) total += units(products[k]);
  return toward_zero(total * unit);
}

}  // namespace

float add_products(float sum, const double* products, int count) {
  if (settings().tensor_cores_truncate) {
    const float half = add_truncating(sum, products, count / 2);
    return add_truncating(half, products + count / 2, count / 2);
  }
  double exact = sum;
  for (int k = 0; k < count; ++k) exact += products[k];
  return static_cast<float>(exact);
}

double square_root(double number) { return std::sqrt(number); }
float add(float a, float b) { return a + b; }
float multiply(float a, float b) { return a * b; }
float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }

}  // namespace emulator
