#include "tile_plan.h"

#include <algorithm>

namespace ortho {
namespace {

std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

std::int64_t multiple(std::int64_t value, std::int64_t step) { return divide_up(value, step) * step; }

// Pieces begin at multiples of this, so that no two of them write to one cache line.
constexpr std::int64_t alignment = 64;

std::int64_t work(const ResidualTile& t) {
  const std::int64_t products = product_work(t);
  return on_diagonal(t) ? products / 2 : products;
}

// The last items are small, so that all threads end at about the same time.
template <class Item, class Work>
void largest_first(std::vector<Item>& items, const Work& work_of) {
  std::stable_sort(items.begin(), items.end(),
                   [&](const Item& a, const Item& b) { return work_of(a) > work_of(b); });
}

std::vector<ResidualTile> whole_tiles(const std::vector<Shape>& shapes, std::int64_t longest) {
  std::vector<ResidualTile> tiles;
  for (std::size_t m = 0; m < shapes.size(); ++m) {
    const auto [order, depth] = shapes[m];
    const std::int64_t side = even_length(order, longest);
    for (std::int64_t row = 0; row < order; row += side) {
      for (std::int64_t column = 0; column <= row; column += side) {
        tiles.push_back({static_cast<std::int32_t>(m), 0, 0, 1, row, std::min(side, order - row), column,
                         std::min(side, order - column), 0, depth});
      }
    }
  }
  return tiles;
}

std::vector<ResidualTile> whole_tiles(const std::vector<ProductShape>& shapes, std::int64_t longest) {
  std::vector<ResidualTile> tiles;
  for (std::size_t m = 0; m < shapes.size(); ++m) {
    const auto [rows, columns, depth] = shapes[m];
    const std::int64_t height = even_length(rows, longest), width = even_length(columns, longest);
    for (std::int64_t row = 0; row < rows; row += height) {
      for (std::int64_t column = 0; column < columns; column += width) {
        tiles.push_back({static_cast<std::int32_t>(m), 0, 0, 1, row, std::min(height, rows - row), column,
                         std::min(width, columns - column), 0, depth, false});
      }
    }
  }
  return tiles;
}

// Cuts the depth of large tiles into parts.
ResidualPlan plan_of(std::vector<ResidualTile> whole, const Capacity& capacity) {
  largest_first(whole, work);
  ResidualPlan plan;
  std::int64_t total = 0;
  for (const ResidualTile& tile : whole) total += work(tile);
  const std::int64_t part_work = std::max(capacity.part_work, total / capacity.parts);
  std::int64_t room = capacity.partial_sums;
  for (ResidualTile tile : whole) {
    tile.group = plan.groups++;
    const std::int64_t depth = tile.depth_end;
    const std::int64_t sums =
        std::max<std::int64_t>(tile.rows * tile.columns / (on_diagonal(tile) ? 2 : 1), 1);
    const std::int64_t parts = std::min((work(tile) + part_work / 2) / part_work, room / sums);
    std::int64_t length = depth;
    if (parts > 1) {
      length = multiple(divide_up(depth, parts), alignment);
      tile.parts = static_cast<std::int32_t>(divide_up(depth, length));
      room -= tile.parts * sums;
    }
    for (tile.part = 0; tile.part < tile.parts; ++tile.part) {
      tile.depth = tile.part * length;
      tile.depth_end = std::min(depth, tile.depth + length);
      plan.tiles.push_back(tile);
    }
  }
  largest_first(plan.tiles, work);
  return plan;
}

}  // namespace

std::int64_t even_length(std::int64_t whole, std::int64_t longest) {
  if (whole <= longest) return longest;
  return std::min(longest, multiple(divide_up(whole, divide_up(whole, longest)), alignment));
}

ResidualPlan plan_residuals(const std::vector<Shape>& shapes, const Capacity& capacity) {
  return plan_of(whole_tiles(shapes, capacity.tile), capacity);
}

ResidualPlan plan_cross_grams(const std::vector<ProductShape>& shapes, const Capacity& capacity) {
  return plan_of(whole_tiles(shapes, capacity.tile), capacity);
}

std::vector<GradientTile> plan_gradients(const std::vector<Shape>& shapes, const Capacity& capacity) {
  std::vector<ProductShape> products;
  products.reserve(shapes.size());
  for (const auto& [order, depth] : shapes) products.push_back({order, depth, order});
  return plan_products(products, capacity);
}

std::vector<GradientTile> plan_products(const std::vector<ProductShape>& shapes, const Capacity& capacity) {
  std::vector<GradientTile> tiles;
  for (std::size_t m = 0; m < shapes.size(); ++m) {
    const ProductShape& shape = shapes[m];
    const std::int64_t rows = even_length(shape.rows, capacity.tile),
                       columns = even_length(shape.columns, capacity.tile);
    for (std::int64_t row = 0; row < shape.rows; row += rows) {
      for (std::int64_t column = 0; column < shape.columns; column += columns) {
        tiles.push_back({static_cast<std::int32_t>(m), row, std::min(rows, shape.rows - row), column,
                         std::min(columns, shape.columns - column)});
      }
    }
  }
  largest_first(tiles, [&](const GradientTile& t) { return t.rows * t.columns * shapes[t.matrix].depth; });
  return tiles;
}

std::vector<DepthRange> plan_ranges(const std::vector<Shape>& shapes, const Capacity& capacity) {
  std::vector<DepthRange> ranges;
  for (std::size_t m = 0; m < shapes.size(); ++m) {
    const auto [order, depth] = shapes[m];
    if (order == 0 || depth == 0) continue;
    const std::int64_t pieces = std::min(depth, divide_up(order * depth, capacity.range_entries));
    const std::int64_t length =
        std::max(multiple(divide_up(depth, pieces), alignment), capacity.range_length);
    for (std::int64_t begin = 0; begin < depth; begin += length) {
      ranges.push_back({static_cast<std::int32_t>(m), begin, std::min(depth, begin + length)});
    }
  }
  largest_first(ranges, [&](const DepthRange& r) { return (r.end - r.begin) * shapes[r.matrix].order; });
  return ranges;
}

}  // namespace ortho
