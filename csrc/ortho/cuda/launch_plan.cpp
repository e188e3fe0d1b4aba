#include "launch_plan.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace ortho::cuda {
namespace {

constexpr std::int64_t waves = 2;  // as many items as make each block take about so many
// A part shorter than this costs more to sum up than it saves. Small matrices are computed in double, at
// which most GPUs are slow: they are cut into shorter parts, but into no more than occupy every block once.
constexpr std::int64_t least_part_chunks = 8, least_small_part_chunks = 2;
// What an item of a gradient reads, about; what it keeps of shared memory where that can be chosen, for
// vectors and for products with them; and the most of both.
constexpr std::int64_t update_item_bytes = 65'536;
constexpr std::int64_t vector_bytes = 16'384, product_bytes = 8'192, most_four_bytes = 81'920;

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t size_of(Storage storage) {
  return storage == Storage::float64 ? 8 : storage == Storage::float32 ? 4 : 2;
}

// Kernels count rows, columns and items in 32 bits.
std::int32_t narrow(std::int64_t value, const char* what) {
  if (value > std::numeric_limits<std::int32_t>::max() - (1 << 20)) {
    throw std::runtime_error(std::string(what) + ": " + std::to_string(value) +
                             " is more than a GPU launch can count; use the triton or the torch backend");
  }
  return static_cast<std::int32_t>(value);
}

std::int32_t grid(std::int64_t items, std::int32_t blocks_together, const Device& device) {
  const std::int64_t most = static_cast<std::int64_t>(device.multiprocessors) * blocks_together;
  return static_cast<std::int32_t>(std::min(items, most));
}

// The matrices of each launch: those of one storage format, in the order of the list, `most` at a time.
std::vector<std::vector<std::int32_t>> batches(const std::vector<PlannedMatrix>& matrices, std::size_t most,
                                               bool only_wanted) {
  std::vector<std::vector<std::int32_t>> result;
  for (const Storage storage : {Storage::float64, Storage::float32, Storage::bfloat16, Storage::float16}) {
    bool full = true;
    for (std::size_t m = 0; m < matrices.size(); ++m) {
      const PlannedMatrix& matrix = matrices[m];
      if (matrix.storage != storage || (only_wanted && !matrix.wanted)) continue;
      narrow(matrix.shape.order, "order of a matrix");
      narrow(matrix.shape.depth, "depth of a matrix");
      if (full) result.emplace_back();
      result.back().push_back(static_cast<std::int32_t>(m));
      full = result.back().size() == most;
    }
  }
  return result;
}

bool any_in_double(const std::vector<PlannedMatrix>& matrices) {
  return std::any_of(matrices.begin(), matrices.end(),
                     [](const PlannedMatrix& matrix) { return matrix.storage == Storage::float64; });
}

// Tiles of the lower triangle; an empty matrix has one too, which writes its value.
std::int64_t triangle_tiles(std::int64_t order, bool in_double) {
  return triangle(std::max<std::int64_t>(divide_up(order, tile_side(in_double)), 1));
}

ResidualLaunch plan_residual_launch(const std::vector<PlannedMatrix>& matrices,
                                    const std::vector<std::int32_t>& batch, bool all_in_double,
                                    const Device& device) {
  ResidualLaunch launch{};
  launch.storage = matrices[batch.front()].storage;
  std::int64_t chunks = 0, small_chunks = 0;
  for (const std::int32_t m : batch) {
    const Shape shape = matrices[m].shape;
    const bool small = is_small(shape) && !all_in_double;
    const std::int64_t own =
        triangle_tiles(shape.order, all_in_double || small) * divide_up(shape.depth, chunk_depth);
    (small ? small_chunks : chunks) += own;
  }
  const std::int64_t blocks = std::int64_t{device.multiprocessors} * tile_blocks;
  const std::int64_t longest = std::max(least_part_chunks, divide_up(chunks, blocks * waves));
  const std::int64_t longest_small = std::max(least_small_part_chunks, divide_up(small_chunks, blocks));
  for (const std::int32_t m : batch) {
    const Shape shape = matrices[m].shape;
    const bool small = is_small(shape) && !all_in_double, in_double = small || all_in_double;
    const std::int64_t all = divide_up(shape.depth, chunk_depth);
    const std::int64_t parts = std::max<std::int64_t>(divide_up(all, small ? longest_small : longest), 1);
    const std::int64_t part = std::max<std::int64_t>(divide_up(all, parts), 1);
    launch.work.push_back({m, in_double, narrow(triangle_tiles(shape.order, in_double), "tiles of a matrix"),
                           static_cast<std::int32_t>(std::max<std::int64_t>(divide_up(all, part), 1)),
                           static_cast<std::int32_t>(part * chunk_depth), 0, 0});
  }
  std::stable_sort(launch.work.begin(), launch.work.end(),
                   [](const ResidualWork& a, const ResidualWork& b) { return a.part_depth > b.part_depth; });
  std::int64_t items = 0, in_slots = 0;
  for (ResidualWork& work : launch.work) {
    const std::int64_t own = std::int64_t{work.tiles} * work.parts;
    work.first_item = narrow(items, "items of a launch");
    work.first_slot_block = narrow(in_slots, "sums of the parts of a launch");
    items += own;
    if (work.parts > 1) in_slots += own * slot_blocks(matrices[work.matrix].shape.order, work.in_double);
  }
  launch.items = narrow(items, "items of a launch");
  launch.blocks = grid(items, tile_blocks, device);
  launch.partial_bytes = sizeof(double) * slot_block_numbers * in_slots;
  launch.sum_bytes = 2 * sizeof(double) * launch.items;
  launch.counter_bytes = sizeof(std::uint32_t) * (1 + launch.items + launch.work.size());
  return launch;
}

}  // namespace

std::vector<PlannedMatrix> planned(const std::vector<Matrix>& matrices) {
  std::vector<PlannedMatrix> result;
  result.reserve(matrices.size());
  for (const Matrix& m : matrices)
    result.push_back({m.shape, m.storage, is_depth_major(m.order_stride, m.depth_stride), true});
  return result;
}

std::vector<PlannedMatrix> planned(const std::vector<Matrix>& matrices,
                                   const std::vector<Gradient>& gradients) {
  std::vector<PlannedMatrix> result = planned(matrices);
  for (std::size_t m = 0; m < result.size(); ++m) result[m].wanted = gradients[m].data != nullptr;
  return result;
}

std::vector<ResidualLaunch> plan_residuals(const std::vector<PlannedMatrix>& matrices, const Device& device) {
  std::vector<ResidualLaunch> launches;
  const bool all_in_double = any_in_double(matrices);
  for (const auto& batch : batches(matrices, residual_matrices, false))
    launches.push_back(plan_residual_launch(matrices, batch, all_in_double, device));
  return launches;
}

std::vector<ProductLaunch> plan_products(const std::vector<PlannedMatrix>& matrices, Precision precision,
                                         const Device& device) {
  std::vector<ProductLaunch> launches;
  const bool in_double = any_in_double(matrices);
  const std::int64_t side = tile_side(in_double);
  for (const auto& batch : batches(matrices, product_matrices, true)) {
    ProductLaunch launch{};
    launch.storage = matrices[batch.front()].storage;
    launch.terms = residual_terms(launch.storage, precision);
    for (const std::int32_t m : batch) {
      const auto [order, depth] = matrices[m].shape;
      const bool is_spread = !in_double && !is_small({order, depth}) && order <= depth;
      const std::int64_t spread = is_spread ? triangle(divide_up(order, spread_side)) : 0;
      launch.work.push_back({m, static_cast<std::int32_t>(divide_up(order, side)),
                             static_cast<std::int32_t>(divide_up(depth, side)),
                             static_cast<std::int32_t>(spread), 0, 0, 0});
    }
    // The tiles of the largest orders take longest and come first.
    std::stable_sort(launch.work.begin(), launch.work.end(), [&](const ProductWork& a, const ProductWork& b) {
      return matrices[a.matrix].shape.order > matrices[b.matrix].shape.order;
    });
    std::int64_t items = 0, spread_items = 0, numbers = 0;
    for (ProductWork& work : launch.work) {
      work.first_item = narrow(items, "items of a launch");
      work.first_spread_item = narrow(spread_items, "items of a launch");
      work.first_number = numbers;
      items += std::int64_t{work.row_tiles} * work.column_tiles;
      spread_items += work.spread_tiles;
      const std::int64_t order = matrices[work.matrix].shape.order;
      if (work.spread_tiles > 0) numbers += plane_numbers(order, launch.terms);
    }
    launch.items = narrow(items, "items of a launch");
    launch.spread_items = narrow(spread_items, "items of a launch");
    launch.blocks = grid(items, tile_blocks, device);
    launch.spread_blocks = grid(spread_items, spread_blocks, device);
    launch.plane_bytes = sizeof(std::uint16_t) * numbers;
    launch.scale_bytes = sizeof(float) * launch.spread_items;
    if (items > 0) launches.push_back(std::move(launch));
  }
  return launches;
}

namespace {

// The least power of two from `least` to `most` that is not below the count.
std::int32_t power_of_two(std::int64_t count, std::int32_t least, std::int32_t most) {
  std::int32_t power = least;
  while (power < most && power < count) power *= 2;
  return power;
}

// Threads across a line of a pass. Along the depth: so wide that all rows stay in the registers; else whole
// sectors of memory. Along the order: the whole order, if a block has so many threads.
std::int32_t pass_width(const PlannedMatrix& matrix) {
  const auto [order, depth] = matrix.shape;
  const std::int64_t size = size_of(matrix.storage), numbers = packet_bytes / size;
  if (!matrix.depth_major) return power_of_two(divide_up(order, numbers), least_width, pass_threads);
  std::int32_t width = power_of_two(divide_up(depth, numbers), least_width, most_depth_width);
  const std::int64_t lines = std::int64_t{pass_packets(size)} * pass_threads;
  while (width > least_width && order > lines / width) width /= 2;
  return order > lines / width ? least_update_width : width;
}

// Which blocks have strips of which matrix; returns how many partial products they leave.
std::int64_t share_out(IterationLaunch& launch, const std::vector<PlannedMatrix>& matrices) {
  const std::int32_t share = launch.items / launch.blocks, longer_shares = launch.items % launch.blocks;
  const auto block_of = [&](std::int32_t item) {
    const std::int32_t in_longer = longer_shares * (share + 1);
    return item < in_longer ? item / (share + 1) : longer_shares + (item - in_longer) / share;
  };
  std::int64_t partials = 0;
  for (std::size_t w = 0; w < launch.work.size(); ++w) {
    IterationWork& work = launch.work[w];
    const std::int32_t end = w + 1 < launch.work.size() ? launch.work[w + 1].first_item : launch.items;
    work.first_partial = partials;
    if (end == work.first_item) continue;
    work.first_block = block_of(work.first_item);
    work.ranges = block_of(end - 1) - work.first_block + 1;
    partials += work.ranges * matrices[work.matrix].shape.order;
  }
  return partials;
}

IterationLaunch plan_iteration_launch(const std::vector<PlannedMatrix>& matrices,
                                      const std::vector<std::int32_t>& batch, std::int64_t iterations,
                                      bool adjoints, const Device& device) {
  IterationLaunch launch{};
  launch.storage = matrices[batch.front()].storage;
  launch.vectors = narrow(adjoints ? 2 * iterations : 2, "vectors of a matrix");
  launch.steps = narrow(adjoints ? 2 * iterations - 1 : iterations, "applications");
  std::int64_t items = 0, vectors = 0, row_blocks = 0;
  for (const std::int32_t m : batch) {
    const auto [order, depth] = matrices[m].shape;
    IterationWork work{};
    work.matrix = m;
    work.width = pass_width(matrices[m]);
    const std::int64_t size = size_of(launch.storage);
    work.strip =
        static_cast<std::int32_t>(matrices[m].depth_major ? work.width * (packet_bytes / size)
                                                          : pass_packets(size) * (pass_threads / work.width));
    work.first_item = narrow(items, "strips of a launch");
    work.first_row_block = narrow(row_blocks, "row blocks of a launch");
    work.first_vector = vectors;
    items += order == 0 ? 0 : divide_up(depth, work.strip);
    row_blocks += std::max<std::int64_t>(divide_up(order, row_block_rows), 1);
    vectors += launch.vectors * order;
    launch.work.push_back(work);
  }
  launch.items = narrow(items, "strips of a launch");
  launch.row_blocks = narrow(row_blocks, "row blocks of a launch");
  launch.blocks = grid(std::max(items, row_blocks), pass_blocks, device);
  launch.partial_bytes = sizeof(double) * share_out(launch, matrices);
  launch.vector_bytes = sizeof(double) * vectors;
  launch.length_bytes = sizeof(double) * row_blocks * row_parts * (iterations + 1);
  launch.counter_bytes = sizeof(std::uint32_t);
  return launch;
}

}  // namespace

std::vector<IterationLaunch> plan_iterations(const std::vector<PlannedMatrix>& matrices,
                                             std::int64_t iterations, bool adjoints, const Device& device) {
  std::vector<IterationLaunch> launches;
  for (const auto& batch : batches(matrices, iteration_matrices, false))
    launches.push_back(plan_iteration_launch(matrices, batch, iterations, adjoints, device));
  return launches;
}

namespace {

// A matrix's part of a launch of gradients. An entry of all vectors, or of the products with them, takes
// `entry_bytes` of shared memory.
UpdateWork plan_update(const PlannedMatrix& matrix, std::int64_t entry_bytes) {
  const std::int64_t order = std::max<std::int64_t>(matrix.shape.order, 1), depth = matrix.shape.depth;
  const std::int64_t size = size_of(matrix.storage), numbers = packet_bytes / size;
  const std::int64_t vectors = vector_bytes / entry_bytes, products = product_bytes / entry_bytes;
  const auto batch = [&](std::int32_t width) { return update_packets(size) * (pass_threads / width); };
  const auto entries = [&](std::int32_t width) { return width * numbers + batch(width); };
  const auto is_too_long = [&](std::int32_t width) { return entries(width) * entry_bytes > most_four_bytes; };
  const auto times = [](std::int64_t most) {
    return static_cast<std::int32_t>(std::max<std::int64_t>(most, 1));
  };
  UpdateWork work{};
  std::int32_t& width = work.width;
  const std::int64_t widest = matrix.depth_major
                                  ? std::min(update_item_bytes / (order * packet_bytes), products / numbers)
                                  : vectors / numbers;
  width = matrix.depth_major ? power_of_two(divide_up(depth, numbers), least_update_width, 64)
                             : power_of_two(divide_up(order, numbers), least_update_width, pass_threads);
  while (width > least_update_width && width > widest) width /= 2;
  while (is_too_long(width) && width < pass_threads && entries(2 * width) < entries(width)) width *= 2;
  const auto positions = static_cast<std::int32_t>(width * numbers);
  if (matrix.depth_major) {
    work.strip = positions;
    work.block = batch(width) * times(std::min(vectors / batch(width), divide_up(order, batch(width))));
  } else {
    work.strip = batch(width) *
                 times(std::min(products / batch(width), update_item_bytes / (batch(width) * order * size)));
    work.block = positions;
  }
  return work;
}

}  // namespace

std::vector<UpdateLaunch> plan_updates(const std::vector<PlannedMatrix>& matrices, std::int64_t pairs,
                                       std::int32_t number_bytes) {
  const std::int64_t entry_bytes = divide_up(2 * pairs, 4) * 4 * number_bytes;
  std::vector<UpdateLaunch> launches;
  for (const auto& batch : batches(matrices, update_matrices, true)) {
    UpdateLaunch launch{};
    launch.storage = matrices[batch.front()].storage;
    std::int64_t items = 0;
    for (const std::int32_t m : batch) {
      const auto [order, depth] = matrices[m].shape;
      UpdateWork work = plan_update(matrices[m], entry_bytes);
      work.matrix = m;
      work.first_item = narrow(items, "items of a launch");
      const std::int64_t bytes = (work.strip + work.block) * entry_bytes;
      if (bytes > most_four_bytes) {
        throw std::runtime_error("srip: the gradient through " + std::to_string(pairs) +
                                 " iterations is too long for a GPU launch; use fewer, or "
                                 "gradient=\"envelope\"");
      }
      launch.four_bytes = std::max<std::size_t>(launch.four_bytes, bytes);
      launch.work.push_back(work);
      items += order == 0 ? 0 : divide_up(depth, work.strip);
    }
    launch.items = narrow(items, "items of a launch");
    if (items > 0) launches.push_back(std::move(launch));
  }
  return launches;
}

}  // namespace ortho::cuda
