#include "cross_gram.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "caches.h"
#include "dispatch.h"
#include "run_tiles.h"
#include "tile_plan.h"

namespace ortho {
namespace {

ProductShape gram_shape(const Pair& pair) {
  return {pair.a.shape.order, pair.b.shape.order, pair.a.shape.depth};
}

// Where the numbers of each pair begin, and at the end how many there are.
template <class Size>
std::vector<std::int64_t> pair_offsets(const std::vector<Pair>& pairs, const Size& size_of) {
  std::vector<std::int64_t> offsets{0};
  offsets.reserve(pairs.size() + 1);
  for (const Pair& pair : pairs) offsets.push_back(offsets.back() + size_of(pair));
  return offsets;
}

std::vector<std::int64_t> row_offsets(const std::vector<Pair>& pairs) {
  return pair_offsets(pairs, [](const Pair& pair) { return pair.a.shape.order; });
}

std::vector<std::int64_t> gram_offsets(const std::vector<Pair>& pairs) {
  return pair_offsets(pairs, [](const Pair& pair) { return pair.a.shape.order * pair.b.shape.order; });
}

// What the entries of two pieces of one row, or of two rows, come to.
double joined(Norm norm, double a, double b) {
  if (norm != Norm::max) return a + b;
  return b > a || std::isnan(b) ? b : a;
}

double value_of(Norm norm, const double* rows, std::int64_t count) {
  double value = 0;
  for (std::int64_t r = 0; r < count; ++r) {
    value = joined(norm, value, norm == Norm::l21 ? std::sqrt(rows[r]) : rows[r]);
  }
  return value;
}

// dL/dG of sum_i |row i of G|, in the place of G: each row over its norm; a zero row stays zero.
template <class C>
void divide_by_norms(C* gram, const double* rows, std::int64_t count, std::int64_t columns) {
  for (std::int64_t r = 0; r < count; ++r, gram += columns) {
    const auto norm = static_cast<C>(std::sqrt(rows[r]));
    if (norm == 0) continue;
    for (std::int64_t c = 0; c < columns; ++c) gram[c] /= norm;
  }
}

// dL/dG of max |G|, in the place of G: the sign of the largest entry, of equal ones of the first.
template <class C>
void mark_largest(C* gram, const double* rows, std::int64_t count, std::int64_t columns, double largest) {
  if (largest == 0) return;  // so is G
  if (std::isnan(largest)) {
    std::fill(gram, gram + count * columns, static_cast<C>(largest));
    return;
  }
  C* row = gram + (std::find(rows, rows + count, largest) - rows) * columns;
  C* entry = std::find_if(row, row + columns, [&](C e) { return std::fabs(e) == static_cast<C>(largest); });
  const C sign = std::copysign(C(1), *entry);
  std::fill(gram, gram + count * columns, C(0));
  *entry = sign;
}

// The pairs of `shapes` that T is the type of the arithmetic of; the others have no rows there.
template <class T, class C>
void cross_grams_in(const std::vector<Pair>& pairs, const std::vector<ProductShape>& shapes, Norm norm,
                    const std::vector<std::int64_t>& first_row, double* rows,
                    const std::vector<std::int64_t>& offsets, C* kept, Workers& workers) {
  const ResidualPlan plan = plan_cross_grams(shapes);
  if (plan.tiles.empty()) return;
  const Kernels<T>& kernels = cpu_kernels_of<T>();
  std::vector<std::int64_t> own_rows(plan.groups + 1);
  for (const ResidualTile& tile : plan.tiles) own_rows[tile.group + 1] = tile.rows;
  for (std::int32_t g = 0; g < plan.groups; ++g) own_rows[g + 1] += own_rows[g];
  std::vector<double> of_tiles(own_rows.back());
  const auto job = [&](const ResidualTile& tile) {
    const Pair& pair = pairs[tile.matrix];
    return CrossGramJob{pair.a,
                        pair.b,
                        tile,
                        norm,
                        of_tiles.data() + own_rows[tile.group],
                        kept ? kept + offsets[tile.matrix] : nullptr,
                        pair.b.shape.order,
                        std::is_same_v<C, float>};
  };
  run_gram_tiles(
      plan, kernels, workers,
      [&](const ResidualTile& tile) { return kernels.cross_gram_memory(tile.rows, tile.columns); },
      [&](const ResidualTile& tile, T* memory) { kernels.cross_gram_tile(job(tile), memory); },
      [&](const ResidualTile& tile, T* memory, T* partial) {
        kernels.cross_gram_part(job(tile), memory, partial);
      },
      [&](const ResidualTile& tile, T* memory, T* partials, std::int64_t part_size) {
        kernels.cross_gram_from_parts(job(tile), memory, partials, tile.parts, part_size);
      });
  for (const ResidualTile& tile : plan.tiles) {
    if (tile.part != 0) continue;
    double* own = rows + first_row[tile.matrix] + tile.row;
    const double* given = of_tiles.data() + own_rows[tile.group];
    for (std::int64_t r = 0; r < tile.rows; ++r) own[r] = joined(norm, own[r], given[r]);
  }
}

// Whether float matrices are computed in double: see small_order.
bool is_small(const ProductShape& shape) { return shape.rows * shape.columns <= small_order * small_order; }

}  // namespace

template <class C>
void cross_gram(const std::vector<Pair>& pairs, Norm norm, C* values, C* kept, Workers& workers) {
  const std::vector<std::int64_t> offsets = gram_offsets(pairs), first_row = row_offsets(pairs);
  std::vector<double> rows(first_row.back());
  std::vector<ProductShape> small(pairs.size()), others(pairs.size());
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    const ProductShape shape = gram_shape(pairs[p]);
    (std::is_same_v<C, float> && is_small(shape) ? small : others)[p] = shape;
  }
  if constexpr (std::is_same_v<C, float>)
    cross_grams_in<double, C>(pairs, small, norm, first_row, rows.data(), offsets, kept, workers);
  cross_grams_in<C, C>(pairs, others, norm, first_row, rows.data(), offsets, kept, workers);
  for (std::size_t p = 0; p < pairs.size(); ++p) {
    const std::int64_t count = pairs[p].a.shape.order, columns = pairs[p].b.shape.order;
    const double* own = rows.data() + first_row[p];
    const double value = value_of(norm, own, count);
    values[p] = static_cast<C>(value);
    if (kept && norm == Norm::l21) divide_by_norms(kept + offsets[p], own, count, columns);
    if (kept && norm == Norm::max) mark_largest(kept + offsets[p], own, count, columns, value);
  }
}

template <class C>
void cross_gram_backward(const C* factors, const std::vector<Pair>& pairs, const C* kept,
                         const std::vector<Gradient>& a_gradients, const std::vector<Gradient>& b_gradients,
                         Precision precision, Workers& workers) {
  const std::vector<std::int64_t> offsets = gram_offsets(pairs);
  // All A, then all B.
  std::vector<Matrix> matrices;
  for (const Pair& pair : pairs) matrices.push_back(pair.a);
  for (const Pair& pair : pairs) matrices.push_back(pair.b);
  std::vector<Gradient> gradients = a_gradients;
  gradients.insert(gradients.end(), b_gradients.begin(), b_gradients.end());
  const auto other = [&](std::size_t m) -> const Matrix& {
    return matrices[m < pairs.size() ? m + pairs.size() : m - pairs.size()];
  };
  std::vector<ProductShape> shapes;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const auto [order, depth] = matrices[m].shape;
    shapes.push_back(gradients[m].data ? ProductShape{order, depth, other(m).shape.order} : ProductShape{});
  }
  const bool non_temporal = outgrows_caches(matrices, gradients);
  run_gradient_tiles<C>(plan_products(shapes), workers, precision, [&](const GradientTile& tile) {
    const bool of_a = tile.matrix < static_cast<std::int64_t>(pairs.size());
    const std::size_t p = of_a ? tile.matrix : tile.matrix - pairs.size();
    const std::int64_t columns = pairs[p].b.shape.order;
    return GradientJob{other(tile.matrix),
                       tile,
                       {kept + offsets[p], true, of_a ? columns : 1, of_a ? 1 : columns},
                       gradients[tile.matrix],
                       static_cast<double>(factors[p]),
                       non_temporal};
  });
}

template void cross_gram(const std::vector<Pair>&, Norm, float*, float*, Workers&);
template void cross_gram(const std::vector<Pair>&, Norm, double*, double*, Workers&);
template void cross_gram_backward(const float*, const std::vector<Pair>&, const float*,
                                  const std::vector<Gradient>&, const std::vector<Gradient>&, Precision,
                                  Workers&);
template void cross_gram_backward(const double*, const std::vector<Pair>&, const double*,
                                  const std::vector<Gradient>&, const std::vector<Gradient>&, Precision,
                                  Workers&);

}  // namespace ortho
