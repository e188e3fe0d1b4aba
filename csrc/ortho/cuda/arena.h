// One allocation, handed out piece by piece.
#pragma once

#include <cstddef>

namespace ortho::cuda {

// Every piece is aligned to 256 bytes.
class Arena {
 public:
  explicit Arena(void* memory) : next_(static_cast<unsigned char*>(memory)) {}
  template <class T>
  T* take(std::size_t bytes) {
    auto* piece = reinterpret_cast<T*>(next_);
    next_ += rounded(bytes);
    return piece;
  }
  static std::size_t rounded(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

 private:
  unsigned char* next_;
};

}  // namespace ortho::cuda
