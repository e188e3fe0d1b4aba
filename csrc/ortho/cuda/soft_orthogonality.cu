#include "../packing.h"
#include "gram_residual.cuh"
#include "launch.h"
#include "launching.h"
#include "residual_product.cuh"

namespace ortho::cuda {
namespace {

std::vector<std::int64_t> residual_offsets(const std::vector<Matrix>& matrices) {
  return packed_offsets(matrices, [](std::int64_t order) { return triangle(order); });
}

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
  arguments.count = static_cast<std::int32_t>(launch.work.size());
  for (std::size_t w = 0; w < launch.work.size(); ++w) {
    const ResidualWork& work = launch.work[w];
    const Matrix& m = matrices[work.matrix];
    arguments.matrices[w] = {m.data,
                             m.order_stride,
                             m.depth_stride,
                             offsets[work.matrix],
                             static_cast<std::int32_t>(m.shape.order),
                             static_cast<std::int32_t>(m.shape.depth),
                             work.first_item,
                             work.first_slot_block,
                             work.part_depth,
                             work.matrix};
  }
  return arguments;
}

ProductArguments product_arguments(const ProductLaunch& launch, const std::vector<Matrix>& matrices,
                                   const std::vector<Gradient>& gradients, const void* grad_values,
                                   const void* residuals, const std::vector<std::int64_t>& offsets) {
  ProductArguments arguments{};
  arguments.grad_values = grad_values;
  arguments.residuals = residuals;
  arguments.items = launch.items;
  arguments.count = static_cast<std::int32_t>(launch.work.size());
  for (std::size_t w = 0; w < launch.work.size(); ++w) {
    const ProductWork& work = launch.work[w];
    const Matrix& m = matrices[work.matrix];
    const Gradient& g = gradients[work.matrix];
    arguments.matrices[w] = {m.data,
                             g.data,
                             m.order_stride,
                             m.depth_stride,
                             g.order_stride,
                             g.depth_stride,
                             offsets[work.matrix],
                             static_cast<std::int32_t>(m.shape.order),
                             static_cast<std::int32_t>(m.shape.depth),
                             work.first_item,
                             work.matrix,
                             g.add};
  }
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
  const std::vector<std::int64_t> offsets = residual_offsets(matrices);
  std::size_t bytes = 0, counter_bytes = 0;
  for (const ResidualLaunch& plan : launches) {
    bytes += Parts::rounded(plan.partial_bytes) + Parts::rounded(plan.sum_bytes);
    counter_bytes += Parts::rounded(plan.counter_bytes);
  }
  // The counters of all launches come first and are cleared together.
  void* const memory = workspace.allocate(bytes + counter_bytes);
  zero(memory, counter_bytes, stream);
  Parts counters(memory), parts(static_cast<unsigned char*>(memory) + counter_bytes);
  for (const ResidualLaunch& plan : launches) {
    ResidualArguments arguments = residual_arguments(plan, matrices, offsets, weights, values, residuals);
    arguments.counters = counters.take<std::uint32_t>(plan.counter_bytes);
    arguments.partials = parts.take<double>(plan.partial_bytes);
    arguments.squares = parts.take<double>(plan.sum_bytes);
    in_storage<C>(plan.storage, [&](auto stored) {
      launch("gram_residual", gram_residual<C, decltype(stored)>,
             {plan.blocks, tile_threads, tile_shared_bytes}, arguments, stream);
    });
  }
}

template <class C>
void soft_orthogonality_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                                 const C* residuals, const std::vector<Gradient>& gradients,
                                 Precision precision, const Device& device, void* stream) {
  const std::vector<std::int64_t> offsets = residual_offsets(matrices);
  for (const ProductLaunch& plan : plan_products(planned(matrices, gradients), device)) {
    const ProductArguments arguments =
        product_arguments(plan, matrices, gradients, grad_values, residuals, offsets);
    in_storage<C>(plan.storage, [&](auto stored) {
      using S = decltype(stored);
      if constexpr (std::is_same_v<C, double>) {
        launch_product<C, S, InDouble>(plan, arguments, stream);
      } else if constexpr (std::is_same_v<S, bfloat16>) {
        launch_product<C, S, Bfloat16Parts<2, 1>>(plan, arguments, stream);
      } else if constexpr (std::is_same_v<S, float16>) {
        launch_product<C, S, Bfloat16Parts<2, 2>>(plan, arguments, stream);
      } else if (precision == Precision::highest) {
        launch_product<C, S, Bfloat16Parts<3, 3>>(plan, arguments, stream);
      } else if (precision == Precision::high) {
        launch_product<C, S, SingleTf32>(plan, arguments, stream);
      } else {
        launch_product<C, S, Bfloat16Parts<1, 1>>(plan, arguments, stream);
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
