#include "arena.h"
#include "penalties.h"
#include "power_iteration.cuh"
#include "rank_update.cuh"
#include "runtime.cuh"

namespace ortho::cuda {
namespace {

// Of a power of two.
std::int32_t log_of(std::int32_t power) {
  std::int32_t log = 0;
  while (power >> log > 1) ++log;
  return log;
}

IterationArguments iteration_arguments(const IterationLaunch& launch, const std::vector<Matrix>& matrices,
                                       const std::vector<ColumnPermutation>& permutations,
                                       const std::vector<std::int64_t>& offsets, const SripOptions& options) {
  IterationArguments arguments{};
  arguments.iterations = static_cast<std::int32_t>(options.iterations);
  arguments.through = options.through;
  arguments.share = launch.items / launch.blocks;
  arguments.longer_shares = launch.items % launch.blocks;
  arguments.row_blocks = launch.row_blocks;
  fill_matrices(launch, matrices, offsets, arguments,
                [&](const IterationWork& work, IterationMatrix& matrix) {
                  matrix.first_partial = work.first_partial;
                  matrix.first_vector = work.first_vector;
                  matrix.log_width = log_of(work.width);
                  matrix.strip = work.strip;
                  matrix.first_block = work.first_block;
                  matrix.ranges = work.ranges;
                  matrix.first_row_block = work.first_row_block;
                  matrix.permutation = permutation_arguments(permutations[work.matrix]);
                });
  return arguments;
}

// All phases in one cooperative launch, or, where a grid can't wait for itself, each in a launch of its own.
template <class C, class S, class T>
void launch_iteration(const IterationLaunch& plan, IterationArguments& arguments, bool cooperative,
                      void* stream) {
  const std::int32_t phases = 2 * plan.steps + 2, at_once = cooperative ? phases : 1;
  for (std::int32_t phase = 0; phase < phases; phase += at_once) {
    arguments.first_phase = phase;
    arguments.end_phase = phase + at_once;
    launch("power_iteration", power_iteration<C, S, T>,
           {plan.blocks, pass_threads, PassMemory<T, S>::bytes, cooperative}, arguments, stream);
  }
}

UpdateArguments update_arguments(const UpdateLaunch& launch, const std::vector<Matrix>& matrices,
                                 const std::vector<Gradient>& gradients,
                                 const std::vector<ColumnPermutation>& permutations,
                                 const std::vector<std::int64_t>& offsets) {
  UpdateArguments arguments{};
  arguments.items = launch.items;
  fill_matrices(launch, matrices, offsets, arguments, [&](const UpdateWork& work, UpdateMatrix& matrix) {
    matrix.gradient = gradient_arguments(gradients[work.matrix]);
    matrix.permutation = permutation_arguments(permutations[work.matrix]);
    matrix.log_width = log_of(work.width);
    matrix.strip = work.strip;
    matrix.block = work.block;
  });
  return arguments;
}

}  // namespace

template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<ColumnPermutation>& permutations,
          const C* start, SripOptions options, C* values, C* vectors, Workspace& workspace,
          const Device& device, void* stream) {
  if (matrices.empty()) return;
  const bool adjoints = vectors && options.through;
  const std::vector<IterationLaunch> launches =
      plan_iterations(planned(matrices), options.iterations, adjoints, device);
  const std::vector<std::int64_t> offsets = order_offsets(matrices);
  std::size_t bytes = 0, counter_bytes = 0;
  for (const IterationLaunch& plan : launches) {
    bytes += Arena::rounded(plan.partial_bytes) + Arena::rounded(plan.vector_bytes) +
             Arena::rounded(plan.length_bytes);
    counter_bytes += Arena::rounded(plan.counter_bytes);
  }
  void* const memory = workspace.allocate(bytes + counter_bytes);
  zero(memory, counter_bytes, stream);
  Arena counters(memory), arena(static_cast<unsigned char*>(memory) + counter_bytes);
  for (const IterationLaunch& plan : launches) {
    IterationArguments arguments = iteration_arguments(plan, matrices, permutations, offsets, options);
    arguments.start = start;
    arguments.values = values;
    arguments.vectors = vectors;
    arguments.adjoints = adjoints;
    arguments.counter = counters.take<std::uint32_t>(plan.counter_bytes);
    arguments.partials = arena.take<void>(plan.partial_bytes);
    arguments.work_vectors = arena.take<void>(plan.vector_bytes);
    arguments.squared_lengths = arena.take<double>(plan.length_bytes);
    in_storage<C>(plan.storage, [&](auto stored) {
      using S = decltype(stored);
      if (std::is_same_v<C, double> || device.fast_double) {
        launch_iteration<C, S, double>(plan, arguments, device.cooperative, stream);
      } else if constexpr (std::is_same_v<C, float>) {
        launch_iteration<C, S, TwoFloat>(plan, arguments, device.cooperative, stream);
      }
    });
  }
}

template <class C>
void srip_backward(const C* factors, const std::vector<Matrix>& matrices,
                   const std::vector<ColumnPermutation>& permutations, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, const Device&, void* stream) {
  const std::vector<std::int64_t> offsets = order_offsets(matrices);
  for (const UpdateLaunch& plan : plan_updates(planned(matrices, gradients), pairs, sizeof(C))) {
    UpdateArguments arguments = update_arguments(plan, matrices, gradients, permutations, offsets);
    arguments.factors = factors;
    arguments.vectors = vectors;
    arguments.pairs = static_cast<std::int32_t>(pairs);
    in_storage<C>(plan.storage, [&](auto stored) {
      using S = decltype(stored);
      launch("rank_update", rank_update<C, S>,
             {plan.items, pass_threads, Update<C, S>::part_bytes + plan.four_bytes}, arguments, stream);
    });
  }
}

template void srip(const std::vector<Matrix>&, const std::vector<ColumnPermutation>&, const float*,
                   SripOptions, float*, float*, Workspace&, const Device&, void*);
template void srip(const std::vector<Matrix>&, const std::vector<ColumnPermutation>&, const double*,
                   SripOptions, double*, double*, Workspace&, const Device&, void*);
template void srip_backward(const float*, const std::vector<Matrix>&, const std::vector<ColumnPermutation>&,
                            const float*, std::int64_t, const std::vector<Gradient>&, const Device&, void*);
template void srip_backward(const double*, const std::vector<Matrix>&, const std::vector<ColumnPermutation>&,
                            const double*, std::int64_t, const std::vector<Gradient>&, const Device&, void*);

}  // namespace ortho::cuda
