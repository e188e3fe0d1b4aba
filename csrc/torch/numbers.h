// What the operators take and return beside weights: contiguous numbers of the compute type, packed one
// matrix after the other.
#pragma once

#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "weight_views.h"

namespace ortho {

using torch::headeronly::ScalarType;
using Integers = std::vector<std::int64_t>;
using Tensors = std::vector<Tensor>;

template <class C>
constexpr ScalarType dtype_of = std::is_same_v<C, double> ? ScalarType::Double : ScalarType::Float;

// Calls body with a number of the compute type: float64 where any weight is float64, else float32.
template <class Body>
auto in_compute_type(const WeightViews& views, const Body& body) {
  return views.has_float64() ? body(double{}) : body(float{});
}

template <class C>
const C* numbers(const Tensor& tensor, std::int64_t count, const char* name) {
  if (tensor.scalar_type() != dtype_of<C> || !tensor.is_contiguous() || tensor.numel() != count) {
    throw std::runtime_error(std::string(name) + ": expected " + std::to_string(count) +
                             " contiguous numbers of " + (std::is_same_v<C, double> ? "float64" : "float32") +
                             ", got " + std::to_string(tensor.numel()) +
                             (tensor.is_contiguous() ? "" : ", not contiguous") +
                             (tensor.scalar_type() != dtype_of<C> ? ", of another dtype" : ""));
  }
  return static_cast<const C*>(tensor.const_data_ptr());
}

inline void check_iterations(std::int64_t iterations) {
  if (iterations < 1)
    throw std::runtime_error("iterations: expected at least 1, got " + std::to_string(iterations));
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
