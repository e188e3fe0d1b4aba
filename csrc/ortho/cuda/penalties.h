// The penalties on a GPU: what cpu/soft_orthogonality.h and cpu/srip.h do on a CPU, packed alike. All
// pointers are to device memory of the current device. Everything is put into `stream` (a cudaStream_t) and
// nothing waits for it, so that a CUDA graph can capture all of it. No state is kept between calls.
//
// Weights may be float64, float32, bfloat16 and float16, mixed at will: each storage format has launches of
// its own. C, the type of values, residuals and vectors, is float, or double where any weight is float64; the
// arithmetic of C = double is in double throughout. Nothing here needs a CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../offsets.h"
#include "../options.h"
#include "launch_plan.h"

namespace ortho::cuda {

// Facts of a device, by its number. Throws std::runtime_error where CUDA has no such device.
Device device_facts(int number);

// Where the memory comes from that is needed while a launch runs: at most once a call.
class Workspace {
 public:
  virtual ~Workspace() = default;
  // Device memory, aligned to 256 bytes, that no other stream touches until all work that is put into the
  // stream before the call returns is done. torch's caching allocator keeps that promise when the tensor is
  // freed after the call.
  virtual void* allocate(std::size_t bytes) = 0;
};

// values: one a matrix; residuals: packed lower triangles of the weighted R, null: keep nothing.
template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workspace& workspace, const Device& device, void* stream);

// A matrix whose gradient has no data is passed over. Where the order is larger than the depth the precision
// is always `highest`: there R W cancels near orthogonality.
template <class C>
void soft_orthogonality_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                                 const std::vector<Gradient>& gradients, Precision precision,
                                 Workspace& workspace, const Device& device, void* stream);

// vectors: pairs_of(options) x 2 x order numbers a matrix, null: keep nothing. permutations: one a matrix, of
// at most most_digits (arguments.h).
template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<ColumnPermutation>& permutations,
          const C* start, SripOptions options, C* values, C* vectors, Workspace& workspace,
          const Device& device, void* stream);

template <class C>
void srip_backward(const C* factors, const std::vector<Matrix>& matrices,
                   const std::vector<ColumnPermutation>& permutations, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, const Device& device, void* stream);

// One standard Gaussian number for each key, at this step, which is read on the device.
void start_vectors(const std::int64_t* keys, std::int64_t count, const std::int64_t* step, float* vectors,
                   const Device& device, void* stream);

}  // namespace ortho::cuda
