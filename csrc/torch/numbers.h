// What the operators take and return beside weights: contiguous numbers of the compute type, packed one
// matrix after the other.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "memory.h"
#include "weight_views.h"

namespace ortho {

using torch::headeronly::ScalarType;
using Integers = std::vector<std::int64_t>;
using Tensors = std::vector<Tensor>;

template <class C>
constexpr ScalarType dtype_of = std::is_same_v<C, double>         ? ScalarType::Double
                                : std::is_same_v<C, std::int64_t> ? ScalarType::Long
                                                                  : ScalarType::Float;
template <class C>
constexpr const char* dtype_name = std::is_same_v<C, double>         ? "float64"
                                   : std::is_same_v<C, std::int64_t> ? "int64"
                                                                     : "float32";

// Calls body with a number of the compute type: float64 where any weight is float64, else float32.
template <class Body>
auto in_compute_type(const WeightViews& views, const Body& body) {
  return views.has_float64() ? body(double{}) : body(float{});
}

template <class C>
const C* numbers(const Tensor& tensor, std::int64_t count, const char* name) {
  if (tensor.scalar_type() != dtype_of<C> || !tensor.is_contiguous() || tensor.numel() != count) {
    throw std::runtime_error(std::string(name) + ": expected " + std::to_string(count) +
                             " contiguous numbers of " + dtype_name<C> + ", got " +
                             std::to_string(tensor.numel()) +
                             (tensor.is_contiguous() ? "" : ", not contiguous") +
                             (tensor.scalar_type() != dtype_of<C> ? ", of another dtype" : ""));
  }
  return static_cast<const C*>(address(tensor, [name] { return std::string(name); }));
}

// A number of applications of R, whose product with any size of memory is far from overflowing.
inline void check_count(const char* name, std::int64_t count) {
  constexpr std::int64_t most = 1 << 20;
  if (count < 1 || count > most) {
    throw std::runtime_error(std::string(name) + ": expected 1 to " + std::to_string(most) + ", got " +
                             std::to_string(count));
  }
}

inline std::int64_t matrix_count(const WeightViews& views) {
  return static_cast<std::int64_t>(views.matrices.size());
}

inline std::int64_t total_order(const WeightViews& views) {
  std::int64_t total = 0;
  for (const Matrix& matrix : views.matrices) total += matrix.shape.order;
  return total;
}

inline std::int64_t total_triangle(const WeightViews& views) {
  std::int64_t total = 0;
  for (const Matrix& matrix : views.matrices) total += triangle(matrix.shape.order);
  return total;
}

}  // namespace ortho
