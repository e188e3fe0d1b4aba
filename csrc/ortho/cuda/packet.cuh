// 16 bytes of neighbors in memory, which a thread loads or stores at once.
#pragma once

#include <cstring>

#include "device.cuh"
#include "launch_plan.h"

namespace ortho::cuda {

template <class S>
constexpr int packet_numbers = packet_bytes / sizeof(S);

// Words, not numbers: two 16-bit numbers share a register.
template <class S>
struct alignas(packet_bytes) Packet {
  std::uint32_t words[packet_bytes / sizeof(std::uint32_t)];

  ORTHO_DEVICE S number(int n) const {
    S number;
    memcpy(&number, reinterpret_cast<const unsigned char*>(words) + n * sizeof(S), sizeof(S));
    return number;
  }
  ORTHO_DEVICE void set(int n, S number) {
    memcpy(reinterpret_cast<unsigned char*>(words) + n * sizeof(S), &number, sizeof(S));
  }
};

}  // namespace ortho::cuda
