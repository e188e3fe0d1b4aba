#include "soft_orthogonality.h"

#include <type_traits>

#include "../offsets.h"
#include "caches.h"
#include "dispatch.h"
#include "run_tiles.h"
#include "tile_plan.h"

namespace ortho {
namespace {

std::vector<Shape> shapes_of(const std::vector<Matrix>& matrices) {
  std::vector<Shape> shapes;
  shapes.reserve(matrices.size());
  for (const Matrix& matrix : matrices) shapes.push_back(matrix.shape);
  return shapes;
}

// All matrices of which T is the type of the arithmetic; the others have the order zero in `shapes`.
template <class T, class C>
void residuals_in(const std::vector<Matrix>& matrices, const std::vector<Shape>& shapes,
                  const std::vector<std::int64_t>& offsets, EntryWeights weights, SquaredSums* totals,
                  C* residuals, Workers& workers) {
  const ResidualPlan plan = plan_residuals(shapes);
  if (plan.tiles.empty()) return;
  const Kernels<T>& kernels = cpu_kernels_of<T>();
  std::vector<SquaredSums> sums(plan.groups);
  const auto job = [&](const ResidualTile& tile) {
    C* residual = residuals ? residuals + offsets[tile.matrix] : nullptr;
    return ResidualJob{matrices[tile.matrix], tile,     weights.diagonal,
                       weights.off_diagonal,  residual, std::is_same_v<C, float>};
  };
  run_gram_tiles(
      plan, kernels, workers,
      [&](const ResidualTile& tile) {
        return kernels.tile_memory(tile.rows, tile.columns, on_diagonal(tile));
      },
      [&](const ResidualTile& tile, T* memory) {
        sums[tile.group] = kernels.residual_tile(job(tile), memory);
      },
      [&](const ResidualTile& tile, T* memory, T* partial) {
        kernels.residual_part(job(tile), memory, partial);
      },
      [&](const ResidualTile& tile, T*, T* partials, std::int64_t part_size) {
        sums[tile.group] = kernels.residual_from_parts(job(tile), partials, tile.parts, part_size);
      });
  for (const ResidualTile& tile : plan.tiles) {
    if (tile.part != 0) continue;
    totals[tile.matrix].diagonal += sums[tile.group].diagonal;
    totals[tile.matrix].below_diagonal += sums[tile.group].below_diagonal;
  }
}

}  // namespace

template <class C>
void soft_orthogonality(const std::vector<Matrix>& matrices, EntryWeights weights, C* values, C* residuals,
                        Workers& workers) {
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices);
  std::vector<Shape> all = shapes_of(matrices);
  std::vector<SquaredSums> totals(matrices.size());
  if constexpr (std::is_same_v<C, float>) {
    std::vector<Shape> small = all;
    bool any_small = false;
    for (std::size_t m = 0; m < all.size(); ++m) {
      const bool is_small = all[m].order <= small_order;
      any_small |= is_small;
      (is_small ? all : small)[m] = Shape{};
    }
    if (any_small)
      residuals_in<double, C>(matrices, small, offsets, weights, totals.data(), residuals, workers);
  }
  residuals_in<C, C>(matrices, all, offsets, weights, totals.data(), residuals, workers);
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
