// The gradient 4 g R W of all matrices of a launch. One item is a tile of a gradient; the depth of the
// product is the order of the matrix.
#pragma once

#include "arguments.h"
#include "reduce.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

struct ProductMatrix : MatrixArguments {
  GradientArguments gradient;
  std::int64_t first_number;  // of its planes; residual_planes.cuh
  std::int32_t first_scale;
  std::int32_t is_spread;  // else the packed triangle is read
};

struct ProductArguments {
  std::uint32_t* taken;  // items
  const void* factors;  // of the gradients, one a matrix
  const void* residuals;
  const void* planes;
  const float* scales;
  std::int32_t items;
  std::int32_t count;
  ProductMatrix matrices[product_matrices];
};
static_assert(sizeof(ProductArguments) <= argument_bytes);

// Rows of R from its planes.
template <class Half, int Terms, int Depth>
class PlanesOperand {
 public:
  using Panel = cuda::Panel<Half, wide_tile, Depth, Major::depth, Terms, half_arrangement>;
  static constexpr bool through_registers = false;
  struct Staged {};

  ORTHO_DEVICE PlanesOperand(const Half* planes, const float* scales, std::int32_t order, std::int32_t first)
      : plane_(order * plane_pitch(order)),
        walk_({planes, plane_pitch(order), 1, order, static_cast<std::int32_t>(plane_pitch(order))}, first,
              0),
        scales_(scales),
        tile_row_((first + HalfPlaces::row(computed_here(thread_index()))) / spread_side) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged&, Half* panel) {
    walk_.for_pieces([&](int, bool valid, const Half* source, int place) {
      ORTHO_UNROLL
      for (int t = 0; t < Terms; ++t)
        copy_async<16>(panel + t * Panel::Own::numbers + place, source + t * plane_, valid);
    });
  }
  ORTHO_DEVICE void write(const Staged&, Half*) const {}

  // Of the tile of R that the chunk belongs to, for the rows of this thread's warp: 64, as a tile has.
  ORTHO_DEVICE float factor(int chunk) const {
    if constexpr (std::is_same_v<Half, bfloat16>) return 1;
    const std::int32_t tile_column = chunk * Depth / spread_side;
    return tile_row_ < tile_column ? scales_[triangle(tile_column) + tile_row_]
                                   : scales_[triangle(tile_row_) + tile_column];
  }

 private:
  static_assert(wide_tile / 2 == spread_side);
  std::int64_t plane_;
  RowWalk<Panel, Depth, Half, 8, true> walk_;
  const float* scales_;
  std::int32_t tile_row_;
};

// Rows [first, first + Side) of R from its packed lower triangle: as they are, or split.
template <class Number, int Side, int Depth, int Terms, class C>
class TriangleOperand {
 public:
  using Panel = cuda::Panel<Number, Side, Depth, Major::depth, Terms>;
  static constexpr bool through_registers = false;
  struct Staged {};

  ORTHO_DEVICE TriangleOperand(const C* triangle_data, std::int32_t order, std::int32_t first)
      : triangle_(triangle_data), order_(order), first_(first) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged&, Number* panel) {
    const bool below = k_ < first_;  // neighbors in a row are neighbors in memory, else those in a column are
    constexpr int pairs = Depth / 2;
    ORTHO_UNROLL
    for (int p = thread_index(); p < Side * pairs; p += tile_threads) {
      const int vector = below ? p / pairs : p % Side, depth = 2 * (below ? p % pairs : p / Side);
      Number* const target = panel + vector * Panel::Own::vector_step + depth;
      const C one = entry(first_ + vector, k_ + depth), other = entry(first_ + vector, k_ + depth + 1);
      if constexpr (std::is_same_v<Number, double>) {
        target[0] = one;
        target[1] = other;
      } else {
        std::uint32_t terms[Terms];
        split<Number>(one, other, terms);
        ORTHO_UNROLL
        for (int t = 0; t < Terms; ++t)
          *reinterpret_cast<std::uint32_t*>(target + t * Panel::Own::numbers) = terms[t];
      }
    }
    k_ += Depth;
  }
  ORTHO_DEVICE void write(const Staged&, Number*) const {}
  ORTHO_DEVICE float factor(int) const { return 1; }

 private:
  ORTHO_DEVICE C entry(std::int32_t row, std::int32_t column) const {
    if (!within(row, order_) || !within(column, order_)) return 0;
    return triangle_[row < column ? triangle(column) + row : triangle(row) + column];
  }

  const C* triangle_;
  std::int32_t order_, first_;
  std::int32_t k_ = 0;
};

// An item: a tile of a gradient.
template <class C, class S>
struct GradientTile {
  const ProductArguments& arguments;
  const ProductMatrix& matrix;
  std::int32_t row, column;

  // W as the vectors of W^T: they run along the depth of the matrix, their own depth is its order.
  ORTHO_DEVICE Operand<S> weight() const {
    return {static_cast<const S*>(matrix.data), matrix.depth_stride, matrix.order_stride, matrix.depth,
            matrix.order};
  }
  ORTHO_DEVICE const C* residual() const {
    return static_cast<const C*>(arguments.residuals) + matrix.offset;
  }

  // sums = R W. Returns whether they are right, as gram_tile() does.
  template <class Products, class Left, class Right, class Sum = typename Products::Sum>
  ORTHO_DEVICE bool multiply(Left left, Right right, Blocks<Sum, Products::side>& sums) const {
    const int columns = Products::Places::columns_needed(computed_here(thread_index()), matrix.order - row,
                                                         matrix.depth - column);
    const int chunks = (matrix.order + Products::depth - 1) / Products::depth;
    tile_product<Products>(left, right, chunks, false, columns, sums, [](const auto&) {});
    if constexpr (std::is_same_v<typename Right::Panel::Entry, float16> && std::is_same_v<S, float>) {
      const bool is_right = hold_all_digits(right, right, sums);
      cuda::multiply(sums, right.unscale());
      return is_right;
    }
    return true;
  }

  template <class Places, class Sum, int N>
  ORTHO_DEVICE void write(Sum (&sums)[N][N][4]) const {
    const Sum scale = 4 * static_cast<Sum>(static_cast<const C*>(arguments.factors)[matrix.index]);
    const GradientArguments& target = matrix.gradient;
    S* const corner = static_cast<S*>(target.data) + row * target.order_stride + column * target.depth_stride;
    for_pairs<Places>(sums, [&](int r, int c, Sum first, Sum second) {
      if (!within(row + r, matrix.order)) return;
      S* const entry = corner + r * target.order_stride + c * target.depth_stride;
      if (within(column + c, matrix.depth)) write_gradient(entry, scale * first, target.accumulate);
      if (within(column + c + 1, matrix.depth))
        write_gradient(entry + target.depth_stride, scale * second, target.accumulate);
    });
  }
};

// With R from its planes, of `Terms` terms; float32 weights are split as R is.
template <int Terms, class C, class S>
ORTHO_DEVICE bool multiply_planes(const GradientTile<C, S>& tile, Blocks<float, wide_tile>& sums) {
  constexpr bool is_split = std::is_same_v<S, float>;
  using Half = std::conditional_t<is_split, float16, S>;
  const ProductMatrix& matrix = tile.matrix;
  const Operand<S> weight = tile.weight();
  bool is_right = false;
  with_access(weight, [&](auto access) {
    constexpr int depth = half_depth<S, decltype(access)>;
    const PlanesOperand<Half, Terms, depth> left(
        static_cast<const Half*>(tile.arguments.planes) + matrix.first_number,
        tile.arguments.scales + matrix.first_scale, matrix.order, tile.row);
    using Right = HalfOperand<S, Terms, decltype(access)>;
    using Products = HalfProducts<Half, Terms, is_split ? Terms : 1, depth>;
    is_right = tile.template multiply<Products>(left, Right(weight, tile.column, 0), sums);
  });
  return is_right;
}

// C: of values and residuals, S: of weights and gradients, Terms: of R.
template <class C, class S, int Terms>
ORTHO_DEVICE void gradient_tile(const GradientTile<C, S>& tile) {
  const Operand<S> weight = tile.weight();
  if constexpr (std::is_same_v<C, double>) {
    Blocks<double, narrow_tile> sums;
    with_access(weight, [&](auto access) {
      const TriangleOperand<double, narrow_tile, Fp64::depth, 1, double> left(tile.residual(),
                                                                              tile.matrix.order, tile.row);
      using Right = StoredOperand<double, S, narrow_tile, Fp64::depth, decltype(access)>;
      tile.template multiply<Fp64>(left, Right(weight, tile.column, 0), sums);
    });
    tile.template write<Fp64::Places>(sums);
  } else {
    Blocks<float, wide_tile> sums;
    if (tile.matrix.is_spread && multiply_planes<Terms>(tile, sums))
      return tile.template write<HalfPlaces>(sums);
    with_major(weight, [&](auto access) {
      const TriangleOperand<bfloat16, wide_tile, 16, 3, float> left(tile.residual(), tile.matrix.order,
                                                                    tile.row);
      using Right = SplitOperand<S, bfloat16, 3, 16, decltype(access)>;
      tile.template multiply<ExactProducts>(left, Right(weight, tile.column, 0), sums);
    });
    tile.template write<ExactProducts::Places>(sums);
  }
}

template <class C, class S, int Terms>
ORTHO_KERNEL(tile_threads, tile_blocks, residual_product, ProductArguments) {
  constexpr std::int32_t side = tile_side(std::is_same_v<C, double>);
  for (;;) {
    const std::int32_t i = next_item(arguments.taken, arguments.items);
    if (i >= arguments.items) return;
    const ProductMatrix& matrix = arguments.matrices[find_matrix(arguments.matrices, arguments.count, i)];
    const std::int32_t row_tiles = (matrix.order + side - 1) / side;
    // Tiles one below the other are neighbors: they read the same part of W.
    const std::int32_t tile = i - matrix.first_item;
    gradient_tile<C, S, Terms>({arguments, matrix, tile % row_tiles * side, tile / row_tiles * side});
  }
}

}  // namespace ortho::cuda
