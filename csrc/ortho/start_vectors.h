// What SRIP's start vectors are made of: a uniform number of each key and step, by integer arithmetic.
// reference.py holds the definition. constexpr, so that a GPU's code may call it too.
#pragma once

#include <cstdint>

namespace ortho {

// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
constexpr std::uint64_t splitmix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

// One of 2^24 numbers within (-1, 1).
constexpr float uniform_number(std::int64_t key, std::int64_t step) {
  constexpr std::uint64_t golden = 0x9E3779B97F4A7C15;
  constexpr float unit = 1.0f / (1 << 24);
  const std::uint64_t bits =
      splitmix64(static_cast<std::uint64_t>(key) + (static_cast<std::uint64_t>(step) + 1) * golden);
  return static_cast<float>((static_cast<std::int64_t>(bits) >> 39) | 1) * unit;
}

constexpr float root_of_two = 1.41421356237f;

}  // namespace ortho
