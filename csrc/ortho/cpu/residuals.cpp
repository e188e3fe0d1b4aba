#include "residuals.h"

#include <atomic>
#include <memory>
#include <type_traits>

#include "../offsets.h"
#include "dispatch.h"
#include "tile_plan.h"

namespace ortho {
namespace {

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
                  const std::vector<GramForm>& forms, const std::vector<std::int64_t>& offsets,
                  EntryWeights weights, SquaredSums* totals, C* residuals, Workers& workers) {
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
                  const ResidualJob job{
                      matrices[tile.matrix], tile,     forms[tile.matrix],      weights.diagonal,
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
