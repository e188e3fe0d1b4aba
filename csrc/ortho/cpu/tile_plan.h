// What one launch does, as pure data: the tiles of all matrices, largest first. A plan depends on the shapes
// alone, never on the number of threads: that is why results have the same bits for any number of them.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"

namespace ortho {

// A tile of the lower triangle of a residual, for a range of the depth. Where the depth is cut into parts,
// the thread that finishes the last part of a tile sums all of them, in a fixed order.
struct ResidualTile {
  std::int32_t matrix;
  std::int32_t group;  // all parts of one tile of the residual have the same group
  std::int32_t part, parts;
  std::int64_t row, rows;
  std::int64_t column, columns;
  std::int64_t depth, depth_end;
};

static constexpr bool on_diagonal(const ResidualTile& tile) { return tile.row == tile.column; }

// A tile of a gradient: rows count along the order, columns along the depth.
struct GradientTile {
  std::int32_t matrix;
  std::int64_t row, rows;
  std::int64_t column, columns;
};

// A range of the depth of a matrix.
struct DepthRange {
  std::int32_t matrix;
  std::int64_t begin, end;
};

struct ResidualPlan {
  std::vector<ResidualTile> tiles;
  std::int32_t groups = 0;
};

// How large the pieces of a plan are.
struct Capacity {
  std::int64_t tile = 512;  // the longest side of a tile
  std::int64_t parts = 32;  // a tile's depth is cut into parts of about this fraction of all work,
  std::int64_t part_work = 16'000'000;    // or of so many products where that is more,
  std::int64_t partial_sums = 1'500'000;  // as long as all parts together keep no more sums in memory
  std::int64_t range_entries = 131'072;   // entries of a depth range, at least,
  std::int64_t range_length = 512;        // and its length
};

// The length of pieces of nearly the same size, none longer than `longest`. They begin at multiples of 64.
std::int64_t even_length(std::int64_t whole, std::int64_t longest);

ResidualPlan plan_residuals(const std::vector<Shape>& shapes, const Capacity& capacity = {});
std::vector<GradientTile> plan_gradients(const std::vector<Shape>& shapes, const Capacity& capacity = {});
std::vector<DepthRange> plan_ranges(const std::vector<Shape>& shapes, const Capacity& capacity = {});

}  // namespace ortho
