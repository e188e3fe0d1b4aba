// The penalties on a GPU: what soft_orthogonality.h and srip.h do on the CPU, with the same packed layouts.
// All pointers are to device memory of the current device; everything is put into `stream` (a cudaStream_t)
// and nothing waits for it, so that all of it can be captured in a CUDA graph. No state is kept between
// calls.
//
// Weights may be float64, float32, bfloat16 and float16, mixed at will: each storage format has launches of
// its own. C, the type of values, residuals and vectors, is float, or double where any weight is float64; the
// arithmetic of C = double is in double throughout. Nothing here needs a CUDA header.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../soft_orthogonality.h"
#include "../srip.h"
#include "plan.h"

namespace ortho::cuda {

// Facts of a device, by its number. Throws std::runtime_error where CUDA has no such device.
Device device_facts(int number);

// Where the memory comes from that is needed while a launch runs: at most once a call, never for a backward.
class Workspace {
 public:
  virtual ~Workspace() = default;
  // Device memory, aligned to 256 bytes, that no other stream touches until all work that is put into the
  // stream before the call returns is done. torch's caching allocator keeps that promise when the tensor is
  // freed after the call.
  virtual void* allocate(std::size_t bytes) = 0;
};

// torch.get_float32_matmul_precision(): how far the product of the backward may be rounded for float32
// weights. Where the order is larger than the depth it is `highest` whatever is asked: there R W cancels near
// orthogonality.
enum class Precision : std::int32_t { highest, high, medium };

// How a caller numbers the entries of a vector where it is not as the matrix does. Entry i of the matrix,
// written with digits of these sizes (the slowest first), is the caller's entry sum of digit x step. No
// digits: both the same. For a channels_last kernel (out, c, h, w) on its columns: sizes h w, c; steps 1, h
// w.
struct EntryDigits {
  struct Digit {
    std::int32_t size = 1, step = 0;
  };
  static constexpr int most = 4;
  std::array<Digit, most> digits{};
  std::int32_t count = 0;
};

// values: one a matrix; residuals: packed lower triangles of the weighted R, null: keep nothing.
template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workspace& workspace, const Device& device, void* stream);

// A matrix whose gradient has no data is passed over.
template <class C>
void soft_orthogonality_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                                 const C* residuals, const std::vector<Gradient>& gradients,
                                 Precision precision, const Device& device, void* stream);

// vectors: pairs_of(options) x 2 x order numbers a matrix, null: keep nothing. entry_orders: one a matrix.
template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<EntryDigits>& entry_orders, const C* start,
          SripOptions options, C* values, C* vectors, Workspace& workspace, const Device& device,
          void* stream);

template <class C>
void srip_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                   const std::vector<EntryDigits>& entry_orders, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, const Device& device, void* stream);

}  // namespace ortho::cuda
