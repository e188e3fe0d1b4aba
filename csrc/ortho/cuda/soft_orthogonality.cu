#include "arena.h"
#include "gram_residual.cuh"
#include "penalties.h"
#include "residual_planes.cuh"
#include "residual_product.cuh"
#include "runtime.cuh"

namespace ortho::cuda {
namespace {

template <class C>
ResidualArguments residual_arguments(const ResidualLaunch& launch, const std::vector<Matrix>& matrices,
                                     const std::vector<std::int64_t>& offsets, EntryWeights weights,
                                     C* values, C* residuals) {
  ResidualArguments arguments{};
  arguments.values = values;
  arguments.residuals = residuals;
  arguments.diagonal = weights.diagonal;
  arguments.off_diagonal = weights.off_diagonal;
  arguments.items = launch.items;
  fill_matrices(launch, matrices, offsets, arguments, [](const ResidualWork& work, ResidualMatrix& matrix) {
    matrix.first_slot_block = work.first_slot_block;
    matrix.part_depth = work.part_depth;
  });
  return arguments;
}

// R of the launch's matrices as dense terms; `planes` and `scales` are what the launch's arguments point to.
void launch_spread(const ProductLaunch& plan, const std::vector<Matrix>& matrices,
                   const std::vector<std::int64_t>& offsets, const float* residuals, void* planes,
                   float* scales, void* stream) {
  SpreadArguments arguments{};
  arguments.residuals = residuals;
  arguments.planes = planes;
  arguments.scales = scales;
  arguments.items = plan.spread_items;
  fill_matrices(plan, matrices, offsets, arguments, [](const ProductWork& work, SpreadMatrix& matrix) {
    matrix.first_item = work.first_spread_item;
    matrix.first_number = work.first_number;
  });
  const LaunchConfig shape{plan.spread_blocks, tile_threads, spread_shared_bytes};
  if (plan.storage == Storage::bfloat16) {
    launch("spread_residuals", spread_residuals<bfloat16, 1>, shape, arguments, stream);
  } else if (plan.terms == 1) {
    launch("spread_residuals", spread_residuals<float16, 1>, shape, arguments, stream);
  } else {
    launch("spread_residuals", spread_residuals<float16, 2>, shape, arguments, stream);
  }
}

template <class C, class S>
void launch_product(const ProductLaunch& plan, const ProductArguments& arguments, void* stream) {
  const LaunchConfig shape{plan.blocks, tile_block_threads<C>, tile_block_bytes<C>};
  constexpr bool has_two = std::is_same_v<C, float> && !std::is_same_v<S, bfloat16>;
  constexpr bool has_one = !(std::is_same_v<C, float> && std::is_same_v<S, float16>);
  if constexpr (has_two) {
    if (plan.terms == 2)
      return launch("residual_product", residual_product<C, S, 2>, shape, arguments, stream);
  }
  if constexpr (has_one) launch("residual_product", residual_product<C, S, 1>, shape, arguments, stream);
}

}  // namespace

template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workspace& workspace, const Device& device, void* stream) {
  if (matrices.empty()) return;
  const std::vector<ResidualLaunch> launches = plan_residuals(planned(matrices), device);
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices);
  std::size_t bytes = 0, counter_bytes = 0;
  for (const ResidualLaunch& plan : launches) {
    bytes += Arena::rounded(plan.partial_bytes) + Arena::rounded(plan.sum_bytes);
    counter_bytes += Arena::rounded(plan.counter_bytes);
  }
  // The counters of all launches come first and are cleared together.
  void* const memory = workspace.allocate(bytes + counter_bytes);
  zero(memory, counter_bytes, stream);
  Arena counters(memory), arena(static_cast<unsigned char*>(memory) + counter_bytes);
  for (const ResidualLaunch& plan : launches) {
    ResidualArguments arguments = residual_arguments(plan, matrices, offsets, weights, values, residuals);
    arguments.counters = counters.take<std::uint32_t>(plan.counter_bytes);
    arguments.partials = arena.take<double>(plan.partial_bytes);
    arguments.squares = arena.take<double>(plan.sum_bytes);
    in_storage<C>(plan.storage, [&](auto stored) {
      launch("gram_residual", gram_residual<C, decltype(stored)>,
             {plan.blocks, tile_block_threads<C>, tile_block_bytes<C>}, arguments, stream);
    });
  }
}

template <class C>
void soft_orthogonality_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                                 const std::vector<Gradient>& gradients, Precision precision,
                                 Workspace& workspace, const Device& device, void* stream) {
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices);
  const std::vector<ProductLaunch> launches = plan_products(planned(matrices, gradients), precision, device);
  if (launches.empty()) return;
  const std::size_t counter_bytes = sizeof(std::uint32_t) * launches.size();
  std::size_t bytes = Arena::rounded(counter_bytes);
  for (const ProductLaunch& plan : launches)
    bytes += Arena::rounded(plan.plane_bytes) + Arena::rounded(plan.scale_bytes);
  Arena arena(workspace.allocate(bytes));
  auto* taken = arena.take<std::uint32_t>(counter_bytes);
  zero(taken, counter_bytes, stream);
  for (const ProductLaunch& plan : launches) {
    ProductArguments arguments{};
    arguments.taken = taken++;
    arguments.factors = factors;
    arguments.residuals = residuals;
    void* const planes = arena.take<void>(plan.plane_bytes);
    auto* const scales = arena.take<float>(plan.scale_bytes);
    arguments.planes = planes;
    arguments.scales = scales;
    arguments.items = plan.items;
    fill_matrices(plan, matrices, offsets, arguments, [&](const ProductWork& work, ProductMatrix& matrix) {
      matrix.gradient = gradient_arguments(gradients[work.matrix]);
      matrix.first_number = work.first_number;
      matrix.first_scale = work.first_spread_item;
      matrix.is_spread = work.spread_tiles > 0;
    });
    if constexpr (std::is_same_v<C, float>) {
      if (plan.spread_items > 0) launch_spread(plan, matrices, offsets, residuals, planes, scales, stream);
    }
    in_storage<C>(plan.storage,
                  [&](auto stored) { launch_product<C, decltype(stored)>(plan, arguments, stream); });
  }
}

template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, float*, float*, Workspace&,
                                 const Device&, void*);
template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, double*, double*, Workspace&,
                                 const Device&, void*);
template void soft_orthogonality_backward(const float*, const std::vector<Matrix>&, const float*,
                                          const std::vector<Gradient>&, Precision, Workspace&, const Device&,
                                          void*);
template void soft_orthogonality_backward(const double*, const std::vector<Matrix>&, const double*,
                                          const std::vector<Gradient>&, Precision, Workspace&, const Device&,
                                          void*);

}  // namespace ortho::cuda
