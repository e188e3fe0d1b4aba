// SRIP's start vectors on a CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "../start_vectors.h"

namespace ortho {

// The inverse of the error function in single precision (Giles, "Approximating the erfinv function", GPU
// Computing Gems, 2011).
inline float inverse_erf(float x) {
  const float w = -std::log((1.0f - x) * (1.0f + x));
  static constexpr float central[] = {2.81022636e-08f,  3.43273939e-07f, -3.5233877e-06f,
                                      -4.39150654e-06f, 2.1858087e-04f,  -1.25372503e-03f,
                                      -4.17768164e-03f, 2.46640727e-01f, 1.50140941f};
  static constexpr float tail[] = {-2.00214257e-04f, 1.00950558e-04f, 1.34934322e-03f,
                                   -3.67342844e-03f, 5.73950773e-03f, -7.6224613e-03f,
                                   9.43887047e-03f,  1.00167406f,     2.83297682f};
  const bool is_central = w < 5.0f;
  const float at = is_central ? w - 2.5f : std::sqrt(w) - 3.0f;
  float p = 0.0f;
  for (const float coefficient : is_central ? central : tail) p = p * at + coefficient;
  return p * x;
}

// One standard Gaussian number for each key, at this step.
inline void start_vectors(const std::int64_t* keys, std::int64_t count, std::int64_t step, float* vectors) {
  for (std::int64_t i = 0; i < count; ++i)
    vectors[i] = root_of_two * inverse_erf(uniform_number(keys[i], step));
}

}  // namespace ortho
