#include "soft_orthogonality.h"

#include <type_traits>

#include "../offsets.h"
#include "caches.h"
#include "dispatch.h"
#include "residuals.h"
#include "tile_plan.h"

namespace ortho {
namespace {

template <class C>
RoundedGradientTile rounded_gradient_tile(Precision precision) {
  return std::is_same_v<C, float> && precision == Precision::medium ? cpu_bfloat_gradient_tile() : nullptr;
}

template <class C>
void gradient_tile(const GradientJob& job, RoundedGradientTile rounded_tile, C* memory) {
  if constexpr (std::is_same_v<C, float>) {
    if (rounded_tile && job.matrix.storage == Storage::float32) return rounded_tile(job, memory);
  }
  cpu_kernels_of<C>().gradient_tile(job, memory);
}

}  // namespace

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
  const std::vector<GradientTile> tiles = plan_gradients(shapes);
  if (tiles.empty()) return;
  const Kernels<C>& kernels = cpu_kernels_of<C>();
  const bool non_temporal = outgrows_caches(matrices, gradients);
  const RoundedGradientTile rounded_tile = rounded_gradient_tile<C>(precision);
  std::int64_t memory = 0;
  double work = 0;
  for (const GradientTile& tile : tiles) {
    memory = std::max(memory, kernels.tile_memory(tile.rows, tile.columns, false));
    work += static_cast<double>(tile.rows) * tile.columns * shapes[tile.matrix].order / 16;
  }
  for_each_item(workers, static_cast<std::int64_t>(tiles.size()), work, memory * sizeof(C),
                [&](std::int64_t item, void* scratch) {
                  const GradientTile& tile = tiles[item];
                  const GradientJob job{matrices[tile.matrix],
                                        tile,
                                        residuals + offsets[tile.matrix],
                                        gradients[tile.matrix],
                                        4.0 * static_cast<double>(factors[tile.matrix]),
                                        non_temporal};
                  gradient_tile<C>(job, rounded_tile, static_cast<C*>(scratch));
                });
}

template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, float*, float*, Workers&);
template void soft_orthogonality(const std::vector<Matrix>&, EntryWeights, double*, double*, Workers&);
template void soft_orthogonality_backward(const float*, const std::vector<Matrix>&, const float*,
                                          const std::vector<Gradient>&, Precision, Workers&);
template void soft_orthogonality_backward(const double*, const std::vector<Matrix>&, const double*,
                                          const std::vector<Gradient>&, Precision, Workers&);

}  // namespace ortho
