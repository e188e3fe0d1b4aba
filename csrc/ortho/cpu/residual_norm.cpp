#include "residual_norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../offsets.h"
#include "dispatch.h"
#include "residuals.h"
#include "scaled_lines.h"
#include "soft_orthogonality.h"

namespace ortho {
namespace {

// Rows of one triangle. How they are cut depends on its order alone, so that no sum depends on threads.
struct RowRange {
  std::size_t matrix;
  std::int64_t begin, end;
};

std::vector<RowRange> plan_rows(const std::vector<Matrix>& matrices) {
  constexpr std::int64_t entries = 65'536, most_ranges = 32;
  std::vector<RowRange> ranges;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const std::int64_t order = matrices[m].shape.order;
    const std::int64_t least = std::max(entries, triangle(order) / most_ranges);
    for (std::int64_t begin = 0, end = 0; begin < order; begin = end) {
      while (end < order && triangle(end) - triangle(begin) < least) ++end;
      ranges.push_back({m, begin, end});
    }
  }
  return ranges;
}

double sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }

// The triangles of all matrices, and what the steps of a norm share. Numbers of rows are packed, one matrix
// after the other.
template <class C>
struct Triangles {
  const std::vector<Matrix>& matrices;
  const Norm norm;
  const std::vector<Unit>& units;
  const EntryWeights weights;
  C* const residuals;
  Workers& workers;
  const Kernels<C>& kernels = cpu_kernels_of<C>();
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices), rows = order_offsets(matrices);
  const std::vector<RowRange> ranges = plan_rows(matrices);
  std::vector<double> inverse_lengths{};

  bool normalized(std::size_t m) const { return units[m] == Unit::vectors; }
  std::int64_t order(std::size_t m) const { return matrices[m].shape.order; }
  std::int64_t total_order() const { return matrices.empty() ? 0 : rows.back() + order(matrices.size() - 1); }
  C* entry(std::size_t m, std::int64_t row, std::int64_t column) const {
    return residuals + offsets[m] + triangle(row) + column;
  }
  double inverse_length(std::size_t m, std::int64_t i) const { return inverse_lengths[rows[m] + i]; }
  double diagonal(std::size_t m, std::int64_t i) const {
    if (!normalized(m)) return static_cast<double>(*entry(m, i, i));
    return inverse_length(m, i) == 0 ? -1 : 0 * inverse_length(m, i);
  }
  TriangleJob job(const RowRange& range) const {
    const std::size_t m = range.matrix;
    return {residuals + offsets[m],
            range.begin,
            range.end,
            norm,
            weights,
            normalized(m) ? &inverse_lengths[rows[m]] : nullptr};
  }
  // Calls body(r) for every range r.
  template <class Body>
  void for_ranges(const Body& body) const {
    double work = 0;
    for (const RowRange& range : ranges) work += 2.0 * (triangle(range.end) - triangle(range.begin));
    for_each_item(workers, static_cast<std::int64_t>(ranges.size()), work, 0,
                  [&](std::int64_t r, void*) { body(static_cast<std::size_t>(r)); });
  }

  // One over each length, the root of the Gram's diagonal: 0 of a zero vector (see smallest_square),
  // NaN where the square overflows.
  void invert_lengths() {
    inverse_lengths.resize(total_order());
    for (std::size_t m = 0; m < matrices.size(); ++m) {
      for (std::int64_t i = 0; normalized(m) && i < order(m); ++i) {
        const double square = static_cast<double>(*entry(m, i, i));
        const double inverse =
            std::isinf(square) ? std::numeric_limits<double>::quiet_NaN() : 1 / std::sqrt(square);
        inverse_lengths[rows[m] + i] = square < smallest_square<C> ? 0 : inverse;
      }
    }
  }
};

// Where the derivative of an entry takes sums over its whole row and column.
template <class C>
bool needs_rows(const Triangles<C>& all, std::size_t m) {
  return all.norm == Norm::l21 || all.normalized(m);
}

// Over the entries off the diagonal, for those matrices that need it: the sums of each row. Adds up `totals`.
// What needs no row is differentiated at once, while it is in a cache, if `differentiate`.
template <class C>
std::vector<double> sum_rows(const Triangles<C>& all, const double* factors, bool differentiate,
                             SquaredSums* totals) {
  std::vector<std::size_t> places;
  std::size_t size = 0;
  for (const RowRange& range : all.ranges) {
    places.push_back(size);
    if (needs_rows(all, range.matrix)) size += range.end;
  }
  std::vector<double> parts(size), sums(all.total_order());
  std::vector<SquaredSums> found(all.ranges.size());
  all.for_ranges([&](std::size_t r) {
    const TriangleJob job = all.job(all.ranges[r]);
    const std::size_t m = all.ranges[r].matrix;
    const bool with_rows = needs_rows(all, m);
    found[r] = all.kernels.measure_rows(job, factors ? factors + all.rows[m] : nullptr,
                                        with_rows ? &parts[places[r]] : nullptr);
    if (differentiate && !with_rows) all.kernels.differentiate_rows(job, nullptr, nullptr);
  });
  for (std::size_t r = 0; r < all.ranges.size(); ++r) {
    const RowRange& range = all.ranges[r];
    totals[range.matrix].diagonal += found[r].diagonal;
    totals[range.matrix].below_diagonal += found[r].below_diagonal;
    double* own = sums.data() + all.rows[range.matrix];
    for (std::int64_t i = 0; needs_rows(all, range.matrix) && i < range.end; ++i)
      own[i] += parts[places[r] + i];
  }
  return sums;
}

// Every norm but the largest entry. The derivatives of l21 and of cosines take sums over rows first.
template <class C>
void sum_norms(const Triangles<C>& all, bool keep, C* values) {
  const std::size_t count = all.matrices.size();
  std::vector<SquaredSums> totals(count);
  std::vector<double> pulls = sum_rows(all, nullptr, keep, totals.data());
  std::vector<double> inverse_rows(all.norm == Norm::l21 ? pulls.size() : 0);
  for (std::size_t m = 0; m < count; ++m) {
    double value =
        all.weights.diagonal * totals[m].diagonal + 2 * all.weights.off_diagonal * totals[m].below_diagonal;
    if (all.norm == Norm::l21) {
      value = 0;
      for (std::int64_t i = 0; i < all.order(m); ++i) {
        const double on = all.diagonal(m, i);
        const double length =
            std::sqrt(all.weights.off_diagonal * pulls[all.rows[m] + i] + all.weights.diagonal * on * on);
        inverse_rows[all.rows[m] + i] = length == 0 ? 0 : 1 / length;
        value += length;
      }
    }
    values[m] = static_cast<C>(value);
  }
  const bool any_normalized = !all.inverse_lengths.empty();
  if (!keep || (all.norm != Norm::l21 && !any_normalized)) return;
  if (all.norm == Norm::l21 && any_normalized) {
    const std::vector<double> of_columns = sum_rows(all, inverse_rows.data(), false, totals.data());
    for (std::size_t i = 0; i < pulls.size(); ++i)
      pulls[i] = (inverse_rows[i] * pulls[i] + of_columns[i]) / 2;
  }
  const double factor = all.weights.off_diagonal * (all.norm == Norm::fro ? 2 : 1);
  for (double& pull : pulls) pull *= factor;
  all.for_ranges([&](std::size_t r) {
    const std::size_t m = all.ranges[r].matrix;
    if (!needs_rows(all, m)) return;
    all.kernels.differentiate_rows(all.job(all.ranges[r]),
                                   inverse_rows.empty() ? nullptr : &inverse_rows[all.rows[m]],
                                   &pulls[all.rows[m]]);
  });
}

// Leaves the derivative of the largest entry of a triangle that was `entry` there and is zero by now.
template <class C>
void differentiate_largest(const Triangles<C>& all, std::size_t m, const LargestEntry& largest,
                           double entry) {
  const std::int64_t i = largest.row, j = largest.column;
  if (i == j) {  // of cosines the diagonal is constant
    const double slope = all.normalized(m) ? 0 * largest.value : all.weights.diagonal * sign(entry) / 2;
    *all.entry(m, i, i) = static_cast<C>(slope);
    return;
  }
  double slope = all.weights.off_diagonal * sign(entry) / 4;
  if (all.normalized(m)) {
    const double row = all.inverse_length(m, i), column = all.inverse_length(m, j);
    slope *= row * column;
    *all.entry(m, i, i) = static_cast<C>(-row * row * largest.value / 4);
    *all.entry(m, j, j) = static_cast<C>(-column * column * largest.value / 4);
  }
  *all.entry(m, i, j) = static_cast<C>(slope);
}

template <class C>
void largest_entries(const Triangles<C>& all, bool keep, C* values) {
  std::vector<LargestEntry> found(all.ranges.size()), largest(all.matrices.size());
  all.for_ranges([&](std::size_t r) { found[r] = all.kernels.largest_entry(all.job(all.ranges[r])); });
  for (std::size_t r = 0; r < all.ranges.size(); ++r) {
    LargestEntry& most = largest[all.ranges[r].matrix];
    if (found[r].value > most.value || (std::isnan(found[r].value) && !std::isnan(most.value)))
      most = found[r];
  }
  std::vector<double> entries(all.matrices.size());
  for (std::size_t m = 0; m < all.matrices.size(); ++m) {
    values[m] = static_cast<C>(all.order(m) ? largest[m].value : 0);
    if (all.order(m)) entries[m] = static_cast<double>(*all.entry(m, largest[m].row, largest[m].column));
  }
  if (!keep) return;
  all.for_ranges([&](std::size_t r) {
    const RowRange& range = all.ranges[r];
    std::fill(all.entry(range.matrix, range.begin, 0), all.entry(range.matrix, range.end, 0), C(0));
  });
  for (std::size_t m = 0; m < all.matrices.size(); ++m) {
    if (all.order(m)) differentiate_largest(all, m, largest[m], entries[m]);
  }
}

template <class C>
void subtract_mean_diagonal(const Triangles<C>& all, std::size_t m) {
  double trace = 0;
  for (std::int64_t i = 0; i < all.order(m); ++i) trace += static_cast<double>(*all.entry(m, i, i));
  for (std::int64_t i = 0; i < all.order(m); ++i) *all.entry(m, i, i) -= static_cast<C>(trace / all.order(m));
}

std::vector<bool> with_unit(const std::vector<Unit>& units, Unit which) {
  std::vector<bool> with;
  for (const Unit unit : units) with.push_back(unit == which);
  return with;
}

}  // namespace

template <class C>
void residual_norm(const std::vector<Matrix>& matrices, Norm norm, const std::vector<Unit>& units,
                   EntryWeights weights, bool keep, C* values, C* residuals, Workers& workers) {
  const std::vector<bool> of_lines = with_unit(units, Unit::lines);
  const std::vector<double> inverse_lengths = inverse_line_lengths<C>(matrices, of_lines, workers);
  std::vector<GramForm> forms(matrices.size());
  std::int64_t line = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    if (units[m] == Unit::vectors) forms[m].identity = 0;
    if (!of_lines[m]) continue;
    forms[m].line_scales = inverse_lengths.data() + line;
    line += matrices[m].shape.depth;
  }
  ortho::residuals(matrices, forms, {1, 1}, residuals, workers);
  Triangles<C> all{matrices, norm, units, weights, residuals, workers};
  if (std::find(units.begin(), units.end(), Unit::vectors) != units.end()) all.invert_lengths();
  if (norm == Norm::max) {
    largest_entries(all, keep, values);
  } else {
    sum_norms(all, keep, values);
  }
  for (std::size_t m = 0; keep && m < matrices.size(); ++m) {
    if (units[m] == Unit::lines) subtract_mean_diagonal(all, m);
  }
}

template <class C>
void residual_norm_backward(const C* factors, const std::vector<Matrix>& matrices,
                            const std::vector<Unit>& units, const C* residuals,
                            const std::vector<Gradient>& gradients, Precision precision, Workers& workers) {
  std::vector<Gradient> products = gradients, projected = gradients;
  for (std::size_t m = 0; m < matrices.size(); ++m)
    (units[m] == Unit::lines ? products : projected)[m].data = nullptr;
  soft_orthogonality_backward(factors, matrices, residuals, products, precision, workers);
  scaled_lines_backward(factors, matrices, residuals, projected, workers);
}

template void residual_norm(const std::vector<Matrix>&, Norm, const std::vector<Unit>&, EntryWeights, bool,
                            float*, float*, Workers&);
template void residual_norm(const std::vector<Matrix>&, Norm, const std::vector<Unit>&, EntryWeights, bool,
                            double*, double*, Workers&);
template void residual_norm_backward(const float*, const std::vector<Matrix>&, const std::vector<Unit>&,
                                     const float*, const std::vector<Gradient>&, Precision, Workers&);
template void residual_norm_backward(const double*, const std::vector<Matrix>&, const std::vector<Unit>&,
                                     const double*, const std::vector<Gradient>&, Precision, Workers&);

}  // namespace ortho
