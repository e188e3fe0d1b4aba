// Turns a plan into launches: what the launchers of both penalties have in common.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "launch.h"
#include "runtime.cuh"

namespace ortho::cuda {

inline std::vector<PlannedMatrix> planned(const std::vector<Matrix>& matrices) {
  std::vector<PlannedMatrix> result;
  result.reserve(matrices.size());
  for (const Matrix& m : matrices)
    result.push_back({m.shape, m.storage, lies_along_depth(m.order_stride, m.depth_stride), true});
  return result;
}

inline std::vector<PlannedMatrix> planned(const std::vector<Matrix>& matrices,
                                          const std::vector<Gradient>& gradients) {
  std::vector<PlannedMatrix> result = planned(matrices);
  for (std::size_t m = 0; m < result.size(); ++m) result[m].wanted = gradients[m].data != nullptr;
  return result;
}

// Hands out parts of one allocation, each aligned to 256 bytes.
class Parts {
 public:
  explicit Parts(void* memory) : next_(static_cast<unsigned char*>(memory)) {}
  template <class T>
  T* take(std::size_t bytes) {
    auto* part = reinterpret_cast<T*>(next_);
    next_ += rounded(bytes);
    return part;
  }
  static std::size_t rounded(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

 private:
  unsigned char* next_;
};

// Calls body(S()) with the type of the storage format. Float arithmetic never meets float64 storage.
template <class C, class Body>
void in_storage(Storage storage, const Body& body) {
  switch (storage) {
    case Storage::float64:
      if constexpr (std::is_same_v<C, double>) body(double{});
      return;
    case Storage::float32:
      return body(float{});
    case Storage::bfloat16:
      return body(bfloat16{});
    case Storage::float16:
      return body(float16{});
  }
}

}  // namespace ortho::cuda
