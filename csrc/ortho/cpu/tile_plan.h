// What one launch does, as pure data: the tiles of all matrices, largest first. A plan depends on the shapes
// alone, never on the number of threads: that is why results have the same bits for any number of them.
#pragma once

#include <cstdint>
#include <vector>

#include "../matrix.h"

namespace ortho {

// A tile of a residual's lower triangle, or of a cross Gram, for a range of the depth. Where the depth is cut
// into parts, the thread that finishes the last part of a tile sums all of them, in a fixed order.
struct ResidualTile {
  std::int32_t matrix;
  std::int32_t group;  // all parts of one tile of the residual have the same group
  std::int32_t part, parts;
  std::int64_t row, rows;
  std::int64_t column, columns;
  std::int64_t depth, depth_end;
  bool symmetric = true;  // of a residual
};

static constexpr bool on_diagonal(const ResidualTile& tile) {
  return tile.symmetric && tile.row == tile.column;
}

inline std::vector<Shape> shapes_of(const std::vector<Matrix>& matrices) {
  std::vector<Shape> shapes;
  shapes.reserve(matrices.size());
  for (const Matrix& matrix : matrices) shapes.push_back(matrix.shape);
  return shapes;
}

// How many products take as long as this tile, with blocks above the diagonal. Of a pair of few rows, packing
// takes most of the time: of one number about as long as 16 products.
static constexpr std::int64_t product_work(const ResidualTile& tile) {
  const std::int64_t packing = tile.symmetric ? 0 : 16 * (tile.rows + tile.columns);
  return (tile.rows * tile.columns + packing) * (tile.depth_end - tile.depth);
}

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

// Of a product of rows x depth and depth x columns.
struct ProductShape {
  std::int64_t rows = 0, columns = 0, depth = 0;
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
ResidualPlan plan_cross_grams(const std::vector<ProductShape>& shapes, const Capacity& capacity = {});
std::vector<GradientTile> plan_gradients(const std::vector<Shape>& shapes, const Capacity& capacity = {});
std::vector<GradientTile> plan_products(const std::vector<ProductShape>& shapes,
                                        const Capacity& capacity = {});
std::vector<DepthRange> plan_ranges(const std::vector<Shape>& shapes, const Capacity& capacity = {});

}  // namespace ortho
