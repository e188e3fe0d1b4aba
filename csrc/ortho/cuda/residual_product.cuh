// The gradient 4 g R W of all matrices of a launch. One item is a tile of a gradient; the depth of the
// product is the order of the matrix.
#pragma once

#include "arguments.h"
#include "packet.cuh"
#include "reduce.cuh"
#include "residual_planes.cuh"
#include "tile_product.cuh"

namespace ortho::cuda {

struct ProductMatrix : MatrixArguments {
  GradientArguments gradient;
  std::int64_t first_number;  // of its planes
  std::int32_t first_scale;
  std::int32_t is_spread;  // else the packed triangle is read
};

struct ProductArguments {
  std::uint32_t* taken;  // items
  const void* factors;   // of the gradients, one a matrix
  const void* residuals;
  const void* planes;
  const float* scales;
  std::int32_t items;
  std::int32_t count;
  ProductMatrix matrices[product_matrices];
};
static_assert(sizeof(ProductArguments) <= argument_bytes);

// Rows of R from its planes, `first` and on.
template <class Half, int Terms, int Depth>
class PlanesOperand {
  using Places = PlanePlaces<Terms>;
  static constexpr bool in_blocks = Places::in_blocks;
  static constexpr int unit = Places::unit;

 public:
  using Panel =
      std::conditional_t<in_blocks,
                         cuda::Panel<Half, wide_tile, Terms * Depth, Major::depth, 1, Arrangement::dense>,
                         cuda::Panel<Half, wide_tile, Depth, Major::depth, Terms, Arrangement::padded>>;
  static constexpr bool through_registers = false, is_copied = true;
  struct Staged {};

  ORTHO_DEVICE PlanesOperand(const Half* planes, const float* scales, std::int32_t order, std::int32_t first)
      : planes_(planes),
        scales_(scales),
        order_(order),
        first_(first),
        depth_(plane_blocks(order) * plane_block) {}

  // Of the next chunk.
  ORTHO_DEVICE void fetch(Staged&, Half* panel) {
    const int thread = bringing_thread();
    if constexpr (in_blocks) {
      constexpr int units = Terms * Depth / unit;  // of a row
      const Half* const source = planes_ + Places(order_).number(first_, k_, 0) + thread * unit;
      const bool valid = within(first_ + thread % wide_tile, order_);
      ORTHO_UNROLL
      for (int i = 0; i < wide_tile * units / tile_threads; ++i) {
        const int block = i * tile_threads / wide_tile / (Terms * Places::units) * plane_block;
        copy_async<16>(panel + (thread + i * tile_threads) * unit, source + i * tile_threads * unit,
                       valid && within(k_ + block, depth_));
      }
    } else {
      constexpr int across = Depth / unit, rows_at_once = tile_threads / across;
      const std::int32_t k = thread % across * unit;
      const Half* source = planes_ + Places(order_).number(first_ + thread / across, k_ + k, 0);
      const std::int64_t step = rows_at_once * Places(order_).row_numbers();
      ORTHO_UNROLL
      for (int i = 0; i < wide_tile / rows_at_once; ++i, source += step) {
        const int r = thread / across + i * rows_at_once;
        const bool valid = within(first_ + r, order_) && within(k_ + k, depth_);
        ORTHO_UNROLL
        for (int t = 0; t < Terms; ++t)
          copy_async<16>(panel + t * Panel::Own::numbers + Panel::Own::place(r, k), source + t * plane_block,
                         valid);
      }
    }
    k_ += Depth;
  }
  ORTHO_DEVICE void write(const Staged&, Half*) const {}
  ORTHO_DEVICE float largest_met() const { return 0; }
  ORTHO_DEVICE void meet(float) const {}

  // Of the tile of R that the chunk belongs to, for the rows of this thread's warp: 64, as a tile has.
  ORTHO_DEVICE float factor(int chunk) const {
    if constexpr (std::is_same_v<Half, bfloat16>) return 1;
    const std::int32_t tile_row = (first_ + HalfPlaces::row(computed_here(thread_index()))) / spread_side;
    const std::int32_t tile_column = chunk * Depth / spread_side;
    return tile_row < tile_column ? scales_[triangle(tile_column) + tile_row]
                                  : scales_[triangle(tile_row) + tile_column];
  }

 private:
  static_assert(in_blocks ? Depth % plane_block == 0 : plane_block % Depth == 0);
  static_assert(wide_tile / 2 == spread_side && wide_tile == plane_rows);
  const Half* planes_;
  const float* scales_;
  std::int32_t order_, first_;
  std::int64_t depth_;
  std::int32_t k_ = 0;
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

  template <class Products>
  ORTHO_DEVICE int chunks() const {
    return (matrix.order + Products::depth - 1) / Products::depth;
  }

  // sums = R W. Returns whether they are right, as gram_tile() does.
  template <class Products, class Left, class Right, class Sum = typename Products::Sum>
  ORTHO_DEVICE bool multiply(Left left, Right right, Blocks<Sum, Products::side>& sums) const {
    const int columns = Products::Places::columns_needed(computed_here(thread_index()), matrix.order - row,
                                                         matrix.depth - column);
    tile_product<Products>(left, right, chunks<Products>(), false, columns, sums, [](const auto&) {});
    if constexpr (std::is_same_v<typename Right::Panel::Entry, float16> && std::is_same_v<S, float>) {
      const bool is_right = hold_all_digits(right, right, sums);
      cuda::multiply(sums, right.unscale());
      return is_right;
    }
    return true;
  }

  // Writes 4 g x the sums, along what is contiguous.
  template <class Places, class Sum, int N>
  ORTHO_DEVICE void write(Sum (&sums)[N][N][4]) const {
    const GradientArguments& target = matrix.gradient;
    S* const corner = static_cast<S*>(target.data) + row * target.order_stride + column * target.depth_stride;
    const std::int32_t rows = matrix.order - row, columns = matrix.depth - column;
    if (is_depth_major(target.order_stride, target.depth_stride)) {
      write_lines<Major::depth, Places>(sums, corner, target.order_stride, target.depth_stride, rows,
                                        columns);
    } else {
      write_lines<Major::vectors, Places>(sums, corner, target.depth_stride, target.order_stride, columns,
                                          rows);
    }
  }

 private:
  // Through shared memory, so that a thread writes 16 bytes at once and its neighbors the next ones.
  template <Major major, class Places, class Sum, int N>
  ORTHO_DEVICE void write_lines(Sum (&sums)[N][N][4], S* corner, std::int64_t line_stride,
                                std::int64_t stride, std::int32_t lines, std::int32_t length) const {
    constexpr bool along = major == Major::depth;
    constexpr int side = 32 * N, numbers = packet_numbers<S>, across = side / numbers;
    constexpr int pitch = side + (along ? 8 : 4);  // so that threads meet all banks
    static_assert(side * pitch * sizeof(Sum) <= tile_shared_bytes);
    auto* const memory = reinterpret_cast<Sum*>(shared_memory());
    const Sum scale = 4 * static_cast<Sum>(static_cast<const C*>(arguments.factors)[matrix.index]);
    for_pairs<Places>(sums, [&](int r, int c, Sum first, Sum second) {
      memory[along ? r * pitch + c : c * pitch + r] = scale * first;
      memory[along ? r * pitch + c + 1 : (c + 1) * pitch + r] = scale * second;
    });
    block_barrier();
    const bool accumulate = matrix.gradient.accumulate;
    const std::int64_t starts = reinterpret_cast<std::intptr_t>(corner) | line_stride * sizeof(S);
    const bool in_packets = stride == 1 && length % numbers == 0 && starts % packet_bytes == 0;
    const int position = thread_index() % across * numbers;
    ORTHO_UNROLL_BY(4)
    for (int line = thread_index() / across; line < side; line += tile_threads / across) {
      if (!within(line, lines)) break;
      const Sum* const own = memory + line * pitch + position;
      S* const target = corner + line * line_stride + position * stride;
      if (in_packets) {
        if (!within(position, length)) break;
        Packet<S> packet = {};
        if (accumulate) packet = *reinterpret_cast<const Packet<S>*>(target);
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n)
          packet.set(n, stored_from<S>(number_from<Sum>(packet.number(n)) + own[n]));
        *reinterpret_cast<Packet<S>*>(target) = packet;
      } else {
        ORTHO_UNROLL
        for (int n = 0; n < numbers; ++n) {
          if (within(position + n, length)) write_gradient(target + n * stride, own[n], accumulate);
        }
      }
    }
  }
};

// The tile of an item. Tiles one below the other are neighbors: they read the same part of W.
template <class C, class S>
ORTHO_DEVICE GradientTile<C, S> gradient_item(const ProductArguments& arguments, std::int32_t index) {
  constexpr std::int32_t side = tile_side(std::is_same_v<C, double>);
  const ProductMatrix& matrix = arguments.matrices[find_matrix(arguments.matrices, arguments.count, index)];
  const std::int32_t row_tiles = (matrix.order + side - 1) / side;
  const std::int32_t tile = index - matrix.first_item;
  return {arguments, matrix, tile % row_tiles * side, tile / row_tiles * side};
}

// R of a tile from its planes, of `Terms` terms; float32 weights are split as R is.
template <class S, int Terms>
struct PlanesTile {
  static constexpr bool is_split = std::is_same_v<S, float>;
  static constexpr int depth = half_depth<S>;
  using Half = std::conditional_t<is_split, float16, S>;
  using Products = HalfProducts<Half, Terms, is_split ? Terms : 1, depth>;
  using Left = PlanesOperand<Half, Terms, depth>;
  template <class Reading>
  using Right = HalfOperand<S, Terms, Reading>;

  template <class C>
  static ORTHO_DEVICE Left left(const GradientTile<C, S>& tile) {
    const ProductMatrix& matrix = tile.matrix;
    return {static_cast<const Half*>(tile.arguments.planes) + matrix.first_number,
            tile.arguments.scales + matrix.first_scale, matrix.order, tile.row};
  }
  template <class Reading, class C>
  static ORTHO_DEVICE Right<Reading> right(const GradientTile<C, S>& tile) {
    return {tile.weight(), tile.column, 0};
  }
};

// C: of values and residuals, S: of weights and gradients, Terms: of R. Calls free_loaders() when none is
// needed any more.
template <class C, class S, int Terms, class FreeLoaders>
ORTHO_DEVICE void gradient_tile(const GradientTile<C, S>& tile, const FreeLoaders& free_loaders) {
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
    bool is_right = false;
    if (tile.matrix.is_spread) {
      using Planes = PlanesTile<S, Terms>;
      with_access(weight, [&](auto access) {
        is_right = tile.template multiply<typename Planes::Products>(
            Planes::left(tile), Planes::template right<decltype(access)>(tile), sums);
      });
    }
    free_loaders();
    if (is_right) return tile.template write<HalfPlaces>(sums);
    with_major(weight, [&](auto access) {
      const TriangleOperand<bfloat16, wide_tile, 16, 3, float> left(tile.residual(), tile.matrix.order,
                                                                    tile.row);
      using Right = SplitOperand<S, bfloat16, 3, 16, decltype(access)>;
      tile.template multiply<ExactProducts>(left, Right(weight, tile.column, 0), sums);
    });
    tile.template write<ExactProducts::Places>(sums);
  }
}

#ifdef ORTHO_WITH_LOADERS

// What loaders do for gradient_tile().
template <class S, int Terms>
ORTHO_DEVICE void bring_gradient_items(const ProductArguments& arguments) {
  serve([&](std::int32_t index, float) {
    using Planes = PlanesTile<S, Terms>;
    const GradientTile<float, S> tile = gradient_item<float, S>(arguments, index);
    with_access(tile.weight(), [&](auto access) {
      auto left = Planes::left(tile);
      auto right = Planes::template right<decltype(access)>(tile);
      bring_chunks(left, right, tile.template chunks<typename Planes::Products>(), false);
    });
  });
}

#endif

template <class C, class S, int Terms>
ORTHO_KERNEL(tile_block_threads<C>, tile_blocks, residual_product, ProductArguments) {
#ifdef ORTHO_WITH_LOADERS
  if constexpr (has_loaders<C>) {
    if (is_loader()) {
      give_registers<loader_registers>();
      return bring_gradient_items<S, Terms>(arguments);
    }
    take_registers<computing_registers>();
  }
#endif
  const auto loads = [&](std::int32_t i) { return gradient_item<C, S>(arguments, i).matrix.is_spread != 0; };
  TakenItems<C, decltype(loads)> items(arguments.taken, arguments.items, loads);
  while (items.begin()) {
    gradient_tile<C, S, Terms>(gradient_item<C, S>(arguments, items.item), [&] { items.free_loaders(); });
  }
}

}  // namespace ortho::cuda
