// The launchers of csrc/ortho/cuda on the emulator, for ctypes: pointers are to host memory. Every function
// returns null, or says what went wrong.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "../../csrc/ortho/cuda/arguments.h"
#include "../../csrc/ortho/cuda/penalties.h"
#include "emulator.h"

namespace {

using ortho::ColumnPermutation;
using ortho::Gradient;
using ortho::Matrix;
using ortho::cuda::PermutationArguments;

struct Request {
  const Matrix* matrices;
  const Gradient* gradients;
  const PermutationArguments* permutations;
  std::int64_t count;
  std::int32_t multiprocessors, cooperative, fast_double, fp64;
};

// As torch's allocator: not cleared.
class HostWorkspace final : public ortho::cuda::Workspace {
 public:
  void* allocate(std::size_t bytes) override {
    memory_.reset(new unsigned char[bytes]);
    std::memset(memory_.get(), 0xff, bytes);
    return memory_.get();
  }

 private:
  std::unique_ptr<unsigned char[]> memory_;
};

std::string message;

template <class Body>
const char* guarded(const Request& request, const Body& body) {
  try {
    const std::vector<Matrix> matrices(request.matrices, request.matrices + request.count);
    const std::vector<Gradient> gradients(request.gradients, request.gradients + request.count);
    std::vector<ColumnPermutation> permutations(request.count);
    for (std::int64_t m = 0; m < request.count; ++m) {
      const PermutationArguments& given = request.permutations[m];
      for (std::int32_t d = 0; d < given.count; ++d)
        permutations[m].push_back({given.digits[d].size, given.digits[d].step});
    }
    const ortho::cuda::Device device{request.multiprocessors, request.cooperative != 0,
                                     request.fast_double != 0};
    HostWorkspace workspace;
    if (request.fp64) {
      body(matrices, gradients, permutations, device, workspace, double{});
    } else {
      body(matrices, gradients, permutations, device, workspace, float{});
    }
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // namespace

extern "C" {

// Whoever fills these structures from another language can see whether they agree.
std::int32_t emulator_size_of_Matrix() { return sizeof(Matrix); }
std::int32_t emulator_size_of_Gradient() { return sizeof(Gradient); }
std::int32_t emulator_size_of_Permutation() { return sizeof(PermutationArguments); }
std::int32_t emulator_size_of_Request() { return sizeof(Request); }

void emulator_set(std::int32_t schedule, std::int32_t copies_arrive_late, std::int32_t resident_blocks,
                  std::int64_t seed, std::int32_t tensor_cores_truncate) {
  emulator::settings() = {static_cast<emulator::Schedule>(schedule), copies_arrive_late != 0, resident_blocks,
                          static_cast<std::uint64_t>(seed), tensor_cores_truncate != 0};
}

void emulator_commit_fault(std::int32_t number) { emulator::chosen_fault() = number; }

// The names of all kernels that were launched since the last call, one a line.
const char* emulator_launches() {
  static std::string names;
  names.clear();
  for (const emulator::Launch& launch : emulator::launch_log()) names += launch.kernel + "\n";
  emulator::launch_log().clear();
  return names.c_str();
}

// Of the last launch: how many blocks counted up more than once. One that finds no item counts once.
std::int32_t emulator_working_blocks() {
  std::int32_t blocks = 0;
  for (const int count : emulator::launch_log().back().counts) blocks += count > 1;
  return blocks;
}

const char* emulated_soft_orthogonality(const Request* request, double diagonal, double off_diagonal,
                                        void* values, void* residuals) {
  return guarded(*request, [&](auto& matrices, auto&, auto&, auto& device, auto& workspace, auto number) {
    using C = decltype(number);
    ortho::cuda::soft_orthogonality<C>(matrices, {diagonal, off_diagonal}, static_cast<C*>(values),
                                       static_cast<C*>(residuals), workspace, device, nullptr);
  });
}

const char* emulated_soft_orthogonality_backward(const Request* request, const void* factors,
                                                 const void* residuals, std::int32_t precision) {
  return guarded(*request,
                 [&](auto& matrices, auto& gradients, auto&, auto& device, auto& workspace, auto number) {
                   using C = decltype(number);
                   ortho::cuda::soft_orthogonality_backward<C>(
                       static_cast<const C*>(factors), matrices, static_cast<const C*>(residuals), gradients,
                       static_cast<ortho::Precision>(precision), workspace, device, nullptr);
                 });
}

const char* emulated_srip(const Request* request, const void* start, std::int64_t iterations,
                          std::int32_t through, void* values, void* vectors) {
  return guarded(
      *request, [&](auto& matrices, auto&, auto& permutations, auto& device, auto& workspace, auto number) {
        using C = decltype(number);
        ortho::cuda::srip<C>(matrices, permutations, static_cast<const C*>(start), {iterations, through != 0},
                             static_cast<C*>(values), static_cast<C*>(vectors), workspace, device, nullptr);
      });
}

const char* emulated_srip_backward(const Request* request, const void* factors, const void* vectors,
                                   std::int64_t pairs) {
  return guarded(
      *request, [&](auto& matrices, auto& gradients, auto& permutations, auto& device, auto&, auto number) {
        using C = decltype(number);
        ortho::cuda::srip_backward<C>(static_cast<const C*>(factors), matrices, permutations,
                                      static_cast<const C*>(vectors), pairs, gradients, device, nullptr);
      });
}

const char* emulated_start_vectors(const Request* request, const std::int64_t* keys, std::int64_t count,
                                   const std::int64_t* step, float* vectors) {
  return guarded(*request, [&](auto&, auto&, auto&, auto& device, auto&, auto) {
    ortho::cuda::start_vectors(keys, count, step, vectors, device, nullptr);
  });
}
}
