// The operators on CPU tensors: unpacks arguments, allocates results, calls the kernels.
#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "../ortho/cpu/cross_gram.h"
#include "../ortho/cpu/residual_norm.h"
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

ortho::Norm norm_of(std::int64_t norm) {
  if (norm < 0 || norm > static_cast<std::int64_t>(ortho::Norm::max))
    throw std::runtime_error("norm: expected 0 (fro), 1 (l1), 2 (l21) or 3 (max), got " +
                             std::to_string(norm));
  return static_cast<ortho::Norm>(norm);
}

std::tuple<Tensor, Tensor> norms(const WeightViews& views, const std::vector<ortho::Unit>& units,
                                 std::int64_t norm, double diagonal, double off_diagonal, bool keep) {
  TorchWorkers workers;
  return in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    Tensor values = new_cpu_numbers<C>(matrix_count(views)),
           residuals = new_cpu_numbers<C>(total_triangle(views));
    ortho::residual_norm<C>(views.matrices, norm_of(norm), units, {diagonal, off_diagonal}, keep,
                            static_cast<C*>(values.mutable_data_ptr()),
                            static_cast<C*>(residuals.mutable_data_ptr()), workers);
    return std::make_tuple(values, keep ? residuals : new_cpu_numbers<C>(0));
  });
}

std::tuple<Tensor, Tensor> residual_norm(const Tensors& weights, const Integers& groups,
                                         const Integers& sides, std::int64_t norm, double diagonal,
                                         double off_diagonal, bool keep) {
  const WeightViews views(weights, groups, sides);
  return norms(views, std::vector<ortho::Unit>(views.matrices.size()), norm, diagonal, off_diagonal, keep);
}

// Of rows scaled to length 1: the vectors of a Gram of rows, and the lines across those of a Gram of columns.
std::vector<ortho::Unit> unit_rows(const WeightViews& views) {
  std::vector<ortho::Unit> units;
  for (const ortho::WeightView& view : views.views) {
    const bool of_rows = view.side == ortho::Side::rows;
    units.insert(units.end(), view.groups, of_rows ? ortho::Unit::vectors : ortho::Unit::lines);
  }
  return units;
}

std::tuple<Tensor, Tensor> unit_rows_norm(const Tensors& weights, const Integers& groups,
                                          const Integers& sides, std::int64_t norm, double diagonal,
                                          double off_diagonal, bool keep) {
  const WeightViews views(weights, groups, sides);
  return norms(views, unit_rows(views), norm, diagonal, off_diagonal, keep);
}

void unit_rows_norm_backward(const Tensor& factors, const Tensors& weights, const Integers& groups,
                             const Integers& sides, const Tensor& residuals, std::int64_t precision,
                             const Tensors& gradients, const Integers& wanted, bool accumulate) {
  const WeightViews views(weights, groups, sides);
  const auto targets = ortho::view_gradients(weights, views, gradients, wanted, accumulate);
  TorchWorkers workers;
  in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    ortho::residual_norm_backward<C>(numbers<C>(factors, matrix_count(views), "factors"), views.matrices,
                                     unit_rows(views),
                                     numbers<C>(residuals, total_triangle(views), "residuals"), targets,
                                     static_cast<ortho::Precision>(precision), workers);
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

// A list of weights and a list of others as pairs of matrices.
struct PairViews {
  PairViews(const Tensors& weights, const Tensors& others, const Integers& groups)
      : weights(weights, groups, Integers(weights.size())),
        others(others, groups, Integers(others.size()), "others") {
    ortho::check_pairs(weights, this->weights, others, this->others);
    for (std::size_t p = 0; p < this->weights.matrices.size(); ++p) {
      const ortho::Pair& pair =
          pairs.emplace_back(ortho::Pair{this->weights.matrices[p], this->others.matrices[p]});
      entries += pair.a.shape.order * pair.b.shape.order;
    }
  }

  WeightViews weights, others;
  std::vector<ortho::Pair> pairs;
  std::int64_t entries = 0;  // of all cross Grams
};

std::tuple<Tensor, Tensor> cross_gram(const Tensors& weights, const Tensors& others, const Integers& groups,
                                      std::int64_t norm, bool keep) {
  const PairViews views(weights, others, groups);
  TorchWorkers workers;
  return in_compute_type(views.weights, views.others, [&](auto number) {
    using C = decltype(number);
    Tensor values = new_cpu_numbers<C>(matrix_count(views.weights));
    Tensor kept = new_cpu_numbers<C>(keep ? views.entries : 0);
    ortho::cross_gram<C>(views.pairs, norm_of(norm), static_cast<C*>(values.mutable_data_ptr()),
                         keep ? static_cast<C*>(kept.mutable_data_ptr()) : nullptr, workers);
    return std::make_tuple(values, kept);
  });
}

void cross_gram_backward(const Tensor& factors, const Tensors& weights, const Tensors& others,
                         const Integers& groups, const Tensor& kept, std::int64_t precision,
                         const Tensors& gradients, const Integers& wanted, bool accumulate) {
  const PairViews views(weights, others, groups);
  if (wanted.size() != 2 * weights.size())
    throw std::runtime_error("expected one `wanted` for each weight, then one for each of the others");
  // Those of the weights come first.
  const auto middle = wanted.begin() + static_cast<std::ptrdiff_t>(weights.size());
  const auto own = std::min<std::ptrdiff_t>(
      std::count_if(wanted.begin(), middle, [](std::int64_t want) { return want != 0; }),
      static_cast<std::ptrdiff_t>(gradients.size()));
  const auto targets =
      ortho::view_gradients(weights, views.weights, Tensors(gradients.begin(), gradients.begin() + own),
                            Integers(wanted.begin(), middle), accumulate);
  const auto other_targets =
      ortho::view_gradients(others, views.others, Tensors(gradients.begin() + own, gradients.end()),
                            Integers(middle, wanted.end()), accumulate);
  TorchWorkers workers;
  in_compute_type(views.weights, views.others, [&](auto number) {
    using C = decltype(number);
    ortho::cross_gram_backward<C>(numbers<C>(factors, matrix_count(views.weights), "factors"), views.pairs,
                                  numbers<C>(kept, views.entries, "kept"), targets, other_targets,
                                  static_cast<ortho::Precision>(precision), workers);
  });
}

Tensor gram_times_vectors(const Tensors& weights, const Integers& groups, const Tensor& vectors) {
  const WeightViews views(weights, groups, Integers(weights.size()));
  TorchWorkers workers;
  return in_compute_type(views, [&](auto number) {
    using C = decltype(number);
    Tensor products = new_cpu_numbers<double>(total_order(views));
    ortho::gram_times_vectors<C>(views.matrices, numbers<C>(vectors, total_order(views), "vectors"),
                                 static_cast<double*>(products.mutable_data_ptr()), workers);
    return products;
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
  m.impl("residual_norm", TORCH_BOX(&residual_norm));
  m.impl("unit_rows_norm", TORCH_BOX(&unit_rows_norm));
  m.impl("unit_rows_norm_backward", TORCH_BOX(&unit_rows_norm_backward));
  m.impl("srip", TORCH_BOX(&srip));
  m.impl("srip_backward", TORCH_BOX(&srip_backward));
  m.impl("cross_gram", TORCH_BOX(&cross_gram));
  m.impl("cross_gram_backward", TORCH_BOX(&cross_gram_backward));
  m.impl("gram_times_vectors", TORCH_BOX(&gram_times_vectors));
  m.impl("start_vectors", TORCH_BOX(&start_vectors));
}
