#include "arena.h"
#include "gram_residual.cuh"
#include "penalties.h"
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

ProductArguments product_arguments(const ProductLaunch& launch, const std::vector<Matrix>& matrices,
                                   const std::vector<Gradient>& gradients, const void* factors,
                                   const void* residuals, const std::vector<std::int64_t>& offsets) {
  ProductArguments arguments{};
  arguments.factors = factors;
  arguments.residuals = residuals;
  arguments.items = launch.items;
  fill_matrices(launch, matrices, offsets, arguments, [&](const ProductWork& work, ProductMatrix& matrix) {
    matrix.gradient = gradient_arguments(gradients[work.matrix]);
  });
  return arguments;
}

template <class C, class S, class Products>
void launch_product(const ProductLaunch& launch_plan, const ProductArguments& arguments, void* stream) {
  launch("residual_product", residual_product<C, S, Products>,
         {launch_plan.blocks, tile_threads, tile_shared_bytes}, arguments, stream);
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
             {plan.blocks, tile_threads, tile_shared_bytes}, arguments, stream);
    });
  }
}

template <class C>
void soft_orthogonality_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                                 const std::vector<Gradient>& gradients, Precision precision,
                                 const Device& device, void* stream) {
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices);
  for (const ProductLaunch& plan : plan_products(planned(matrices, gradients), device)) {
    const ProductArguments arguments =
        product_arguments(plan, matrices, gradients, factors, residuals, offsets);
    in_storage<C>(plan.storage, [&](auto stored) {
      using S = decltype(stored);
      if constexpr (std::is_same_v<C, double>) {
        launch_product<C, S, Fp64>(plan, arguments, stream);
      } else if constexpr (std::is_same_v<S, bfloat16>) {
        launch_product<C, S, SplitBfloat16<2, 1>>(plan, arguments, stream);
      } else if constexpr (std::is_same_v<S, float16>) {
        launch_product<C, S, SplitBfloat16<2, 2>>(plan, arguments, stream);
      } else if (precision == Precision::highest) {
        launch_product<C, S, SplitBfloat16<3, 3>>(plan, arguments, stream);
      } else if (precision == Precision::high) {
        launch_product<C, S, Tf32>(plan, arguments, stream);
      } else {
        launch_product<C, S, SplitBfloat16<1, 1>>(plan, arguments, stream);
      }
    });
  }
}

template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, float*, float*, Workspace&,
                                 const Device&, void*);
template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, double*, double*, Workspace&,
                                 const Device&, void*);
template void soft_orthogonality_backward(const float*, const std::vector<Matrix>&, const float*,
                                          const std::vector<Gradient>&, Precision, const Device&, void*);
template void soft_orthogonality_backward(const double*, const std::vector<Matrix>&, const double*,
                                          const std::vector<Gradient>&, Precision, const Device&, void*);

}  // namespace ortho::cuda
