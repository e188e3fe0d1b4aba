// The operators on CPU tensors: unpacks arguments, allocates results, calls the kernels.
#include <tuple>
#include <vector>

#include "../ortho/cpu/soft_orthogonality.h"
#include "../ortho/cpu/srip.h"
#include "../ortho/cpu/start_vectors.h"
#include "tensor_args.h"
#include "workers.h"

namespace {

using ortho::in_compute_type;
using ortho::Integers;
using ortho::matrix_count;
using ortho::new_cpu_numbers;
using ortho::numbers;
using ortho::Tensor;
using ortho::Tensors;
using ortho::TorchWorkers;
using ortho::total_order;
using ortho::total_triangle;
using ortho::WeightViews;

std::tuple<Tensor, Tensor> soft_orthogonality(const Tensors& weights, const Integers& groups,
                                              const Integers& sides, double diagonal, double off_diagonal,
                                              bool keep) {
  const WeightViews views(weights, groups, sides);
  TorchWorkers workers;
  return in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    Tensor values = new_cpu_numbers<C>(matrix_count(views));
    Tensor residuals = new_cpu_numbers<C>(keep ? total_triangle(views) : 0);
    ortho::soft_orthogonality<C>(views.matrices, {diagonal, off_diagonal},
                                 static_cast<C*>(values.mutable_data_ptr()),
                                 keep ? static_cast<C*>(residuals.mutable_data_ptr()) : nullptr, workers);
    return std::make_tuple(values, residuals);
  });
}

void soft_orthogonality_backward(const Tensor& factors, const Tensors& weights, const Integers& groups,
                                 const Integers& sides, const Tensor& residuals, std::int64_t precision,
                                 const Tensors& gradients, const Integers& wanted, bool accumulate) {
  const WeightViews views(weights, groups, sides);
  const auto targets = ortho::view_gradients(weights, views, gradients, wanted, accumulate);
  TorchWorkers workers;
  in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    ortho::soft_orthogonality_backward<C>(numbers<C>(factors, matrix_count(views), "factors"), views.matrices,
                                          numbers<C>(residuals, total_triangle(views), "residuals"), targets,
                                          static_cast<ortho::Precision>(precision), workers);
  });
}

std::tuple<Tensor, Tensor> srip(const Tensors& weights, const Integers& groups, const Integers& sides,
                                const Tensor& start, std::int64_t iterations, bool through, bool keep) {
  ortho::check_count("iterations", iterations);
  const WeightViews views(weights, groups, sides);
  const ortho::SripOptions options{iterations, through};
  TorchWorkers workers;
  return in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    Tensor values = new_cpu_numbers<C>(matrix_count(views));
    Tensor vectors = new_cpu_numbers<C>(keep ? 2 * ortho::pairs_of(options) * total_order(views) : 0);
    ortho::srip<C>(views.matrices, views.column_permutations(weights),
                   numbers<C>(start, total_order(views), "start"), options,
                   static_cast<C*>(values.mutable_data_ptr()),
                   keep ? static_cast<C*>(vectors.mutable_data_ptr()) : nullptr, workers);
    return std::make_tuple(values, vectors);
  });
}

void srip_backward(const Tensor& factors, const Tensors& weights, const Integers& groups,
                   const Integers& sides, const Tensor& vectors, std::int64_t pairs, const Tensors& gradients,
                   const Integers& wanted, bool accumulate) {
  ortho::check_count("pairs", pairs);
  const WeightViews views(weights, groups, sides);
  const auto targets = ortho::view_gradients(weights, views, gradients, wanted, accumulate);
  TorchWorkers workers;
  in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    ortho::srip_backward<C>(numbers<C>(factors, matrix_count(views), "factors"), views.matrices,
                            views.column_permutations(weights),
                            numbers<C>(vectors, 2 * pairs * total_order(views), "vectors"), pairs, targets,
                            workers);
  });
}

Tensor start_vectors(const Tensor& keys, const Tensor& step) {
  Tensor vectors = new_cpu_numbers<float>(keys.numel());
  ortho::start_vectors(numbers<std::int64_t>(keys, keys.numel(), "keys"), keys.numel(),
                       *numbers<std::int64_t>(step, 1, "step"),
                       static_cast<float*>(vectors.mutable_data_ptr()));
  return vectors;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ortho_kernels, CPU, m) {
  m.impl("soft_orthogonality", TORCH_BOX(&soft_orthogonality));
  m.impl("soft_orthogonality_backward", TORCH_BOX(&soft_orthogonality_backward));
  m.impl("srip", TORCH_BOX(&srip));
  m.impl("srip_backward", TORCH_BOX(&srip_backward));
  m.impl("start_vectors", TORCH_BOX(&start_vectors));
}
