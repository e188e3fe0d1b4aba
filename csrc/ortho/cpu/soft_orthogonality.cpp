#include "soft_orthogonality.h"

#include <atomic>
#include <memory>
#include <type_traits>

#include "../offsets.h"
#include "caches.h"
#include "dispatch.h"
#include "tile_plan.h"

namespace ortho {
namespace {

std::vector<Shape> shapes_of(const std::vector<Matrix>& matrices) {
  std::vector<Shape> shapes;
  shapes.reserve(matrices.size());
  for (const Matrix& matrix : matrices) shapes.push_back(matrix.shape);
  return shapes;
}

// The parts of those tiles whose depth is cut: their sums, and how many parts are not yet there.
template <class T>
class PartialSums {
 public:
  PartialSums(const ResidualPlan& plan, const Kernels<T>& kernels) : slots_(plan.groups) {
    std::int64_t total = 0;
    for (const ResidualTile& tile : plan.tiles) {
      if (tile.parts == 1 || tile.part != 0) continue;
      Slot& slot = slots_[tile.group];
      slot.part_size = kernels.blocks_memory(tile.rows, tile.columns, on_diagonal(tile));
      slot.offset = total;
      slot.missing.store(tile.parts, std::memory_order_relaxed);
      total += slot.part_size * tile.parts;
    }
    sums_.reset(total ? new T[total] : nullptr);
  }

  T* part(const ResidualTile& tile, std::int64_t part) const {
    const Slot& slot = slots_[tile.group];
    return sums_.get() + slot.offset + part * slot.part_size;
  }
  std::int64_t part_size(const ResidualTile& tile) const { return slots_[tile.group].part_size; }
  // Returns whether this is the last part to arrive.
  bool arrives_last(const ResidualTile& tile) {
    return slots_[tile.group].missing.fetch_sub(1, std::memory_order_acq_rel) == 1;
  }

 private:
  struct Slot {
    std::int64_t offset = 0, part_size = 0;
    std::atomic<std::int32_t> missing{0};
  };
  std::vector<Slot> slots_;
  std::unique_ptr<T[]> sums_;
};

// All matrices of which T is the type of the arithmetic; the others have the order zero in `shapes`.
template <class T, class C>
void residuals_in(const std::vector<Matrix>& matrices, const std::vector<Shape>& shapes,
                  const std::vector<std::int64_t>& offsets, EntryWeights weights, SquaredSums* totals,
                  C* residuals, Workers& workers) {
  const ResidualPlan plan = plan_residuals(shapes);
  if (plan.tiles.empty()) return;
  const Kernels<T>& kernels = cpu_kernels_of<T>();
  PartialSums<T> partials(plan, kernels);
  std::vector<SquaredSums> sums(plan.groups);
  std::int64_t memory = 0;
  double work = 0;
  for (const ResidualTile& tile : plan.tiles) {
    memory = std::max(memory, kernels.tile_memory(tile.rows, tile.columns, on_diagonal(tile)));
    work += static_cast<double>(tile.rows) * tile.columns * (tile.depth_end - tile.depth) / 16;
  }
  for_each_item(workers, static_cast<std::int64_t>(plan.tiles.size()), work, memory * sizeof(T),
                [&](std::int64_t item, void* scratch) {
                  const ResidualTile& tile = plan.tiles[item];
                  C* residual = residuals ? residuals + offsets[tile.matrix] : nullptr;
                  const ResidualJob job{matrices[tile.matrix], tile,     weights.diagonal,
                                        weights.off_diagonal,  residual, std::is_same_v<C, float>};
                  T* own = static_cast<T*>(scratch);
                  if (tile.parts == 1) {
                    sums[tile.group] = kernels.residual_tile(job, own);
                  } else {
                    kernels.residual_part(job, own, partials.part(tile, tile.part));
                    if (partials.arrives_last(tile)) {
                      sums[tile.group] = kernels.residual_from_parts(job, partials.part(tile, 0), tile.parts,
                                                                     partials.part_size(tile));
                    }
                  }
                });
  for (const ResidualTile& tile : plan.tiles) {
    if (tile.part != 0) continue;
    totals[tile.matrix].diagonal += sums[tile.group].diagonal;
    totals[tile.matrix].below_diagonal += sums[tile.group].below_diagonal;
  }
}

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
