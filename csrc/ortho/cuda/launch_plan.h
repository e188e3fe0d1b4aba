// What the GPU's launches do, as pure data: which matrices share a launch, how their work is cut into items,
// and how much memory that takes. It depends on shapes, storage formats and the device alone, so the same
// weights on the same device always give the same bits. Plain C++: the launcher, the emulator, tests and
// models read it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../matrix.h"
#include "../options.h"

namespace ortho::cuda {

// What a plan must know of a GPU.
struct Device {
  int multiprocessors = 132;
  bool cooperative = true;  // can start a grid whose blocks all run at the same time
  bool fast_double = true;  // computes in double at no less than a quarter of float's rate
};

// Whether neighbors along the depth are the closer ones in memory.
constexpr bool is_depth_major(std::int64_t order_stride, std::int64_t depth_stride) {
  return depth_stride <= order_stride;
}

struct PlannedMatrix {
  Shape shape;
  Storage storage = Storage::float32;
  bool depth_major = true;  // the depth has the smaller stride
  bool wanted = true;       // its gradient is; read where gradients are planned
};

// The second form leaves out matrices whose gradient has no data.
std::vector<PlannedMatrix> planned(const std::vector<Matrix>& matrices);
std::vector<PlannedMatrix> planned(const std::vector<Matrix>& matrices,
                                   const std::vector<Gradient>& gradients);

// Sides of the tiles of residuals and of gradients, where they are computed in double and where not.
constexpr std::int32_t narrow_tile = 64, wide_tile = 128;
constexpr std::int32_t tile_side(bool in_double) { return in_double ? narrow_tile : wide_tile; }
// The residuals of small matrices are: their few entries don't average out the rounding errors of float sums,
// nor the last bit that two float16 terms lack.
constexpr bool is_small(Shape shape) {
  return shape.order <= small_order || (shape.order <= 2 * small_order && shape.depth <= 2 * small_order);
}
constexpr std::int32_t tile_threads = 256;  // of a block that computes them
constexpr std::int32_t tile_blocks = 1;     // blocks that fit a multiprocessor together
constexpr std::int32_t chunk_depth = 32;    // parts of the depth are multiples of it
constexpr std::int32_t spread_blocks = 4;   // blocks that spread triangles and fit a multiprocessor together

// Blocks that pass over W with vectors. Their threads load packets (lines.cuh); `width` of them, a power of
// two, lie across a line.
constexpr std::int32_t pass_threads = 256;
constexpr std::int32_t pass_blocks = 2;  // that fit a multiprocessor together
constexpr std::int32_t packet_bytes = 16;
constexpr std::int32_t least_width = 4, least_update_width = 8, most_depth_width = 128;
// Packets of a thread: as many as stay in its registers from one use to the next, and of a gradient.
constexpr std::int32_t pass_packets(std::size_t number_bytes) { return number_bytes == 4 ? 16 : 8; }
constexpr std::int32_t update_packets(std::size_t number_bytes) { return pass_packets(number_bytes) / 2; }
constexpr std::int32_t row_block_rows = 64, row_parts = 2;  // of a reduction; a part is a warp's

// Arguments of a kernel may take 32764 bytes: these many matrices go into one launch.
constexpr std::size_t argument_bytes = 32764;
constexpr std::size_t residual_matrices = 580, product_matrices = 330, iteration_matrices = 256,
                      update_matrices = 250;

// ---- R: one item is a tile of the lower triangle for a part of the depth ---------------------------------

// Where the depth is cut, each part of a tile leaves its sums in a slot of the workspace (part_slots.cuh). A
// slot is a whole number of 8 x 8 blocks of doubles. In double it has no more of them than its order needs;
// otherwise float sums and the squared lengths of a tile's vectors take half of it and a little more.
constexpr std::int32_t slot_block = 8, slot_block_numbers = slot_block * slot_block;
constexpr std::int32_t slot_blocks_across(std::int64_t order, bool in_double) {
  const std::int64_t side = tile_side(in_double);
  return static_cast<std::int32_t>(((order < side ? order : side) + slot_block - 1) / slot_block);
}
constexpr std::int64_t slot_blocks(std::int64_t order, bool in_double) {
  const std::int64_t across = slot_blocks_across(order, in_double);
  return in_double ? across * across : (wide_tile * wide_tile / 2 + wide_tile) / slot_block_numbers;
}

struct ResidualWork {
  std::int32_t matrix;            // index into the list that was planned
  bool in_double;                 // how it is computed
  std::int32_t tiles;             // of its triangle
  std::int32_t parts;             // of the depth
  std::int32_t part_depth;        // length of all parts but the last
  std::int32_t first_item;        // in this launch; the parts of a tile are neighbors
  std::int32_t first_slot_block;  // where its slots begin, in blocks
};

struct ResidualLaunch {
  Storage storage;                 // of all its matrices
  std::vector<ResidualWork> work;  // the deepest items first
  std::int32_t items = 0;
  std::int32_t blocks = 0;  // of the grid; whoever is done takes the next item (reduce.cuh)
  // Of the workspace: sums of parts, squared sums of tiles, counters (to be zeroed before the launch).
  std::size_t partial_bytes = 0, sum_bytes = 0, counter_bytes = 0;
};

std::vector<ResidualLaunch> plan_residuals(const std::vector<PlannedMatrix>& matrices, const Device& device);

// ---- 4 g R W: one item is a tile of the gradient ----------------------------------------------------------
//
// Before it the packed triangle of R is spread to dense 16-bit terms, in planes of `order` rows, of which the
// products can be copied as they are; an item of that is a tile of the triangle. The triangle itself is read
// where no digit may be lost: in double, of small orders, whose rounding errors don't average out, and where
// the order is larger than the depth, so that R W cancels near orthogonality.

constexpr std::int32_t spread_side = 64;  // of the tiles that are spread, each with a scale of its own
// Terms take turns along the depth: so many first terms, as many second terms, then the next first terms.
// Where warpgroups multiply, planes are in blocks of so many rows too (residual_planes.cuh).
constexpr std::int32_t plane_block = 32, plane_rows = wide_tile;
constexpr std::int64_t plane_blocks(std::int64_t order) { return (order + plane_block - 1) / plane_block; }
constexpr std::int64_t plane_numbers(std::int64_t order, std::int32_t terms) {
  return (order + plane_rows - 1) / plane_rows * plane_rows * plane_blocks(order) * plane_block * terms;
}

// Float32 numbers are two float16 terms; a gradient that may be rounded to tf32 needs one. Bfloat16 gradients
// get one bfloat16 term: it is off by no more than they are. Float16 weights and R are multiplied exactly.
constexpr std::int32_t residual_terms(Storage storage, Precision precision) {
  if (storage == Storage::bfloat16) return 1;
  return storage == Storage::float32 && precision != Precision::highest ? 1 : 2;
}

struct ProductWork {
  std::int32_t matrix;
  std::int32_t row_tiles, column_tiles;  // along the order and along the depth
  std::int32_t spread_tiles;             // 0: the triangle itself is read
  std::int32_t first_item, first_spread_item;
  std::int64_t first_number;  // of its planes
};

struct ProductLaunch {
  Storage storage;
  std::vector<ProductWork> work;
  std::int32_t terms = 1;
  std::int32_t items = 0, spread_items = 0;
  std::int32_t blocks = 0, spread_blocks = 0;
  // Of the workspace: planes, and the scales of their tiles.
  std::size_t plane_bytes = 0, scale_bytes = 0;
};

std::vector<ProductLaunch> plan_products(const std::vector<PlannedMatrix>& matrices, Precision precision,
                                         const Device& device);

// ---- SRIP: one item of a pass is a strip of the depth, one of a reduction a block of rows ----------------

struct IterationWork {
  std::int32_t matrix;
  std::int32_t width;        // threads across a line
  std::int32_t strip;        // entries of the depth that a block uses twice in a row
  std::int32_t first_item;   // its first strip
  std::int32_t first_block;  // that has one of its strips
  std::int32_t ranges;       // blocks that have
  std::int32_t first_row_block;
  std::int64_t first_partial;  // where its partial products begin, in numbers: ranges x order
  std::int64_t first_vector;   // where its vectors begin, in numbers
};

struct IterationLaunch {
  Storage storage;
  std::vector<IterationWork> work;
  std::int32_t items = 0;  // as equally shared out as can be, longer shares first
  std::int32_t row_blocks = 0;
  std::int32_t vectors = 0;  // that are kept of each matrix
  std::int32_t steps = 0;    // applications of R to a vector, forward and adjoint
  std::int32_t blocks = 0;
  // Of the workspace: partial products, vectors, squared lengths, counters (to be zeroed before the launch).
  std::size_t partial_bytes = 0, vector_bytes = 0, length_bytes = 0, counter_bytes = 0;
};

std::vector<IterationLaunch> plan_iterations(const std::vector<PlannedMatrix>& matrices,
                                             std::int64_t iterations, bool adjoints, const Device& device);

// ---- gradients of SRIP: one item, a block of the grid, is a strip of the depth ---------------------------

struct UpdateWork {
  std::int32_t matrix;
  std::int32_t width;  // threads across a line
  std::int32_t strip;  // entries of the depth of an item
  std::int32_t block;  // entries of the order whose vectors are in shared memory together
  std::int32_t first_item;
};

struct UpdateLaunch {
  Storage storage;
  std::vector<UpdateWork> work;
  std::int32_t items = 0;
  std::size_t four_bytes = 0;  // of shared memory: a block of all vectors, and their products with a strip
};

// `number_bytes`: of a number of the arithmetic, 4 or 8.
std::vector<UpdateLaunch> plan_updates(const std::vector<PlannedMatrix>& matrices, std::int64_t pairs,
                                       std::int32_t number_bytes);

}  // namespace ortho::cuda
