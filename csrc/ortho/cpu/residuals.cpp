#include "residuals.h"

#include <type_traits>

#include "../offsets.h"
#include "dispatch.h"
#include "run_tiles.h"
#include "tile_plan.h"

namespace ortho {
namespace {

// All matrices of which T is the type of the arithmetic; the others have the order zero in `shapes`.
template <class T, class C>
void residuals_in(const std::vector<Matrix>& matrices, const std::vector<Shape>& shapes,
                  const std::vector<GramForm>& forms, const std::vector<std::int64_t>& offsets,
                  EntryWeights weights, SquaredSums* totals, C* residuals, Workers& workers) {
  const ResidualPlan plan = plan_residuals(shapes);
  if (plan.tiles.empty()) return;
  const Kernels<T>& kernels = cpu_kernels_of<T>();
  std::vector<SquaredSums> sums(plan.groups);
  const auto job = [&](const ResidualTile& tile) {
    C* residual = residuals ? residuals + offsets[tile.matrix] : nullptr;
    return ResidualJob{matrices[tile.matrix], tile,     forms[tile.matrix],      weights.diagonal,
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
std::vector<SquaredSums> residuals(const std::vector<Matrix>& matrices, const std::vector<GramForm>& forms,
                                   EntryWeights weights, C* residuals, Workers& workers) {
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
      residuals_in<double, C>(matrices, small, forms, offsets, weights, totals.data(), residuals, workers);
  }
  residuals_in<C, C>(matrices, all, forms, offsets, weights, totals.data(), residuals, workers);
  return totals;
}

template std::vector<SquaredSums> residuals(const std::vector<Matrix>&, const std::vector<GramForm>&,
                                            EntryWeights, float*, Workers&);
template std::vector<SquaredSums> residuals(const std::vector<Matrix>&, const std::vector<GramForm>&,
                                            EntryWeights, double*, Workers&);

}  // namespace ortho
