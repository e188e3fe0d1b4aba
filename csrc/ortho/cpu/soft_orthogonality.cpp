#include "soft_orthogonality.h"

#include "../offsets.h"
#include "caches.h"
#include "residuals.h"
#include "run_tiles.h"
#include "tile_plan.h"

namespace ortho {

template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workers& workers) {
  const std::vector<GramForm> forms(matrices.size());
  const std::vector<SquaredSums> totals = ortho::residuals(matrices, forms, weights, residuals, workers);
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    values[m] = static_cast<C>(weights.diagonal * totals[m].diagonal +
                               2 * weights.off_diagonal * totals[m].below_diagonal);
  }
}

template <class C>
void soft_orthogonality_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                                 const std::vector<Gradient>& gradients, Precision precision,
                                 Workers& workers) {
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices);
  std::vector<Shape> shapes = shapes_of(matrices);
  for (std::size_t m = 0; m < shapes.size(); ++m) {
    if (!gradients[m].data) shapes[m] = Shape{};
  }
  const bool non_temporal = outgrows_caches(matrices, gradients);
  run_gradient_tiles<C>(plan_gradients(shapes), workers, precision, [&](const GradientTile& tile) {
    return GradientJob{matrices[tile.matrix],
                       tile,
                       {residuals + offsets[tile.matrix]},
                       gradients[tile.matrix],
                       4.0 * static_cast<double>(factors[tile.matrix]),
                       non_temporal};
  });
}

template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, float*, float*, Workers&);
template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, double*, double*, Workers&);
template void soft_orthogonality_backward(const float*, const std::vector<Matrix>&, const float*,
                                          const std::vector<Gradient>&, Precision, Workers&);
template void soft_orthogonality_backward(const double*, const std::vector<Matrix>&, const double*,
                                          const std::vector<Gradient>&, Precision, Workers&);

}  // namespace ortho
