// Runs plans of tiles: of Grams, whose depth may be cut into parts, and of gradients.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <type_traits>
#include <vector>

#include "../options.h"
#include "dispatch.h"
#include "parallel.h"
#include "tile_plan.h"

namespace ortho {

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

// For each tile of the plan, in numbers of T: whole(tile, memory), or part(tile, memory, sums) for each of
// its parts and then joined(tile, memory, sums of all, size of each). memory_of(tile) is how many numbers of
// memory each of them takes.
template <class T, class Memory, class Whole, class Part, class Joined>
void run_gram_tiles(const ResidualPlan& plan, const Kernels<T>& kernels, Workers& workers,
                    const Memory& memory_of, const Whole& whole, const Part& part, const Joined& joined) {
  PartialSums<T> partials(plan, kernels);
  std::int64_t memory = 0;
  double work = 0;
  for (const ResidualTile& tile : plan.tiles) {
    memory = std::max(memory, memory_of(tile));
    work += static_cast<double>(product_work(tile)) / 16;
  }
  for_each_item(workers, static_cast<std::int64_t>(plan.tiles.size()), work, memory * sizeof(T),
                [&](std::int64_t item, void* scratch) {
                  const ResidualTile& tile = plan.tiles[item];
                  T* own = static_cast<T*>(scratch);
                  if (tile.parts == 1) return whole(tile, own);
                  part(tile, own, partials.part(tile, tile.part));
                  if (partials.arrives_last(tile))
                    joined(tile, own, partials.part(tile, 0), partials.part_size(tile));
                });
}

template <class C>
void gradient_tile(const GradientJob& job, RoundedGradientTile rounded_tile, C* memory) {
  if constexpr (std::is_same_v<C, float>) {
    if (rounded_tile && job.matrix.storage == Storage::float32) return rounded_tile(job, memory);
  }
  cpu_kernels_of<C>().gradient_tile(job, memory);
}

// job(tile) is what a tile works on. Only `medium` rounds, to bfloat16, where this CPU has dot products of
// it.
template <class C, class Job>
void run_gradient_tiles(const std::vector<GradientTile>& tiles, Workers& workers, Precision precision,
                        const Job& job) {
  if (tiles.empty()) return;
  const Kernels<C>& kernels = cpu_kernels_of<C>();
  const bool rounds = std::is_same_v<C, float> && precision == Precision::medium;
  const RoundedGradientTile rounded_tile = rounds ? cpu_bfloat_gradient_tile() : nullptr;
  std::int64_t memory = 0;
  double work = 0;
  for (const GradientTile& tile : tiles) {
    memory = std::max(memory, kernels.tile_memory(tile.rows, tile.columns, false));
    work += static_cast<double>(tile.rows) * tile.columns * job(tile).matrix.shape.order / 16;
  }
  for_each_item(workers, static_cast<std::int64_t>(tiles.size()), work, memory * sizeof(C),
                [&](std::int64_t item, void* scratch) {
                  gradient_tile<C>(job(tiles[item]), rounded_tile, static_cast<C*>(scratch));
                });
}

}  // namespace ortho
