// The recurrences of power iteration on vectors alone: the caller computes W W^T vector in between.
//
// With x_i = R x_(i-1) normalized at every step and s_i = |R x_(i-1)|, the value is s_m. The adjoints, each
// scaled by the length that its partner was divided by, are
//   p_m = x_m,   p_(m-1) = (R p_m - s_m x_(m-1)) / s_(m-1),   p_i = R p_(i+1) / s_i,
// and the gradient is the sum of (p_i x_(i-1)^T + x_(i-1) p_i^T) W over i: for i = m alone where vectors are
// constants.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace ortho {

template <class T>
class PowerChain {
 public:
  // Numbers of T that a chain needs: all vectors where the adjoints are wanted, else the last two.
  static std::int64_t memory(std::int64_t order, std::int64_t iterations, bool adjoints) {
    return order * (adjoints ? 2 * iterations : 2);
  }

  // The start vector must have been written to start().
  PowerChain(std::int64_t order, std::int64_t iterations, bool adjoints, T* memory)
      : order_(order),
        iterations_(iterations),
        adjoints_(adjoints),
        memory_(memory),
        lengths_(iterations + 1) {}

  T* start() { return vector(0); }
  void begin() { normalize(vector(0), vector(0)); }
  bool done() const { return step_ == iterations_ + (adjoints_ ? iterations_ - 1 : 0); }

  // What W W^T is to be applied to next.
  const T* input() const { return step_ < iterations_ ? vector(step_) : adjoint(2 * iterations_ - step_); }

  // Takes W W^T input() and goes one step on.
  void advance(const double* product) {
    const T* x = input();
    if (step_ < iterations_) {
      T* next = vector(step_ + 1);
      for (std::int64_t i = 0; i < order_; ++i)
        next[i] = static_cast<T>(product[i] - static_cast<double>(x[i]));
      lengths_[step_ + 1] = normalize(next, next);
    } else {
      const std::int64_t i = 2 * iterations_ - step_ - 1;
      T* next = adjoint(i);
      const double sigma = i == iterations_ - 1 ? value() : 0;
      for (std::int64_t j = 0; j < order_; ++j) {
        const double applied = product[j] - static_cast<double>(x[j]);
        next[j] = divide(static_cast<T>(applied - sigma * vector(iterations_ - 1)[j]), lengths_[i]);
      }
    }
    ++step_;
  }

  std::int64_t order() const { return order_; }
  T value() const { return lengths_[iterations_]; }

  // The pair of application i = 1 ... iterations. A value of zero has no direction: its gradient is zero.
  T left(std::int64_t i, std::int64_t entry) const { return value() == 0 ? T(0) : adjoint(i)[entry]; }
  T right(std::int64_t i, std::int64_t entry) const { return value() == 0 ? T(0) : vector(i - 1)[entry]; }

 private:
  // x_0 ... x_m, then p_1 ... p_(m-1).
  T* vector(std::int64_t i) const { return memory_ + order_ * (adjoints_ ? i : i % 2); }
  T* adjoint(std::int64_t i) const {
    return i == iterations_ ? vector(i) : memory_ + order_ * (iterations_ + i);
  }

  // A NaN stays one: only an exact zero is left alone.
  static T divide(T numerator, T length) { return length == 0 ? T(0) : numerator / length; }

  T normalize(const T* from, T* to) const {
    double squares = 0;
    for (std::int64_t i = 0; i < order_; ++i)
      squares += static_cast<double>(from[i]) * static_cast<double>(from[i]);
    const T length = static_cast<T>(std::sqrt(squares));
    for (std::int64_t i = 0; i < order_; ++i) to[i] = divide(from[i], length);
    return length;
  }

  std::int64_t order_, iterations_;
  bool adjoints_;
  T* memory_;
  std::vector<T> lengths_;
  std::int64_t step_ = 0;
};

}  // namespace ortho
