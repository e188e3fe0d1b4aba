// Arithmetic as the hardware does it: conversions, operations that are rounded once, and sums of products as
// tensor cores form them.
#pragma once

#include <cstdint>
#include <cstring>

namespace emulator {

template <class To, class From>
To bits_as(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

float float_from_half(std::uint16_t bits);
std::uint16_t half_from_float(float number);
std::uint16_t bfloat_from_float(float number);
double square_root(double number);
// Each rounded once: in a source of their own, no compiler sees what they are used for.
float add(float a, float b);
float multiply(float a, float b);
float multiply_add(float a, float b, float c);

// Returns sum + the products, as the tensor cores of the settings add: exactly and then rounded to the
// nearest float, or truncating.
float add_products(float sum, const double* products, int count);
inline double add_products(double sum, const double* products, int count) {
  for (int k = 0; k < count; ++k) sum += products[k];
  return sum;
}

}  // namespace emulator
