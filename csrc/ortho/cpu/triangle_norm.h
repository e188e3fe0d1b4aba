// Norms of a residual over its packed lower triangle, and their derivatives in its place. In double: the
// products before it take most of the time.
#pragma once

#include "kernels.h"
#include "lines.h"
#include "magnitudes.h"

namespace ortho::ORTHO_LEVEL {
namespace {

using Doubles = Vector<double>;

// One row of the triangle, as entries of R.
template <class C, bool Cosines>
struct TriangleRow {
  TriangleRow(const TriangleJob& job, std::int64_t row)
      : entries(static_cast<C*>(job.triangle) + triangle(row)),
        inverse_lengths(job.inverse_lengths),
        row(row),
        scale(Cosines ? inverse_lengths[row] : 1) {}

  // Of the row's and the columns' lengths.
  template <class Read>
  Doubles scales(const Read& read) const {
    if constexpr (Cosines) return scale * read(inverse_lengths);
    return broadcast(1.0);
  }
  template <class Read>
  Doubles off_diagonal(const Read& read) const {
    if constexpr (Cosines) return read(entries) * scales(read);
    return read(entries);
  }
  double diagonal() const {
    if constexpr (Cosines) return scale == 0 ? -1 : scale - scale;  // NaN of NaN
    return static_cast<double>(entries[row]);
  }

  C* entries;
  const double* inverse_lengths;
  std::int64_t row;
  double scale;
};

// Calls body with whether the triangle holds cosines.
template <class Body>
ORTHO_INLINE auto with_cosines(const TriangleJob& job, const Body& body) {
  return job.inverse_lengths ? body(std::true_type{}) : body(std::false_type{});
}

template <class C>
SquaredSums measure_rows(const TriangleJob& job, const double* factors, double* sums) {
  const auto over_rows = [&](auto cosines, const auto& measure) {
    SquaredSums total;
    for (std::int64_t i = job.begin; i < job.end; ++i) {
      const TriangleRow<C, decltype(cosines)::value> row(job, i);
      Doubles plain{}, weighted{};
      along<double>(i, [&](const auto& read, const auto& write) {
        const Doubles entry = measure(row.off_diagonal(read));
        plain += entry;
        if (!sums) return;
        weighted += factors ? entry * read(factors) : entry;
        write(sums, read(sums) + (factors ? entry * factors[i] : entry));
      });
      if (sums) sums[i] += sum_of_lanes<double>(weighted);
      total.below_diagonal += sum_of_lanes<double>(plain);
      total.diagonal += measure(broadcast(row.diagonal()))[0];
    }
    return total;
  };
  return with_cosines(job, [&](auto cosines) {
    return job.norm == Norm::l1 ? over_rows(cosines, [](Doubles entry) { return magnitude(entry); })
                                : over_rows(cosines, [](Doubles entry) { return entry * entry; });
  });
}

template <class C>
LargestEntry largest_entry(const TriangleJob& job) {
  LargestEntry largest;
  const auto is_larger = [&](double value) {
    return value > largest.value || (value != value && largest.value == largest.value);
  };
  return with_cosines(job, [&](auto cosines) {
    for (std::int64_t i = job.begin; i < job.end; ++i) {
      const TriangleRow<C, decltype(cosines)::value> row(job, i);
      const auto weighted = [&](const auto& read) {
        return job.weights.off_diagonal * magnitude(row.off_diagonal(read));
      };
      Doubles most = broadcast(-1.0);
      along<double>(i, [&](const auto& read, const auto&) { most = larger(most, weighted(read)); });
      for (int lane = 0; lane < lanes<double>; ++lane) {
        if (is_larger(most[lane])) largest = {most[lane], i, -1};
      }
      for (std::int64_t c = 0; c < i && largest.row == i && largest.column < 0; ++c) {
        const double entry =
            weighted([c](const auto* line) { return broadcast(static_cast<double>(line[c])); })[0];
        if (entry == largest.value || entry != entry) largest.column = c;
      }
      const double on_diagonal = job.weights.diagonal * magnitude(broadcast(row.diagonal()))[0];
      if (is_larger(on_diagonal)) largest = {on_diagonal, i, i};
    }
    return largest;
  });
}

template <class C>
void differentiate_rows(const TriangleJob& job, const double* inverse_rows, const double* pulls) {
  const auto over_rows = [&](auto cosines, const auto& derivative) {
    for (std::int64_t i = job.begin; i < job.end; ++i) {
      const TriangleRow<C, decltype(cosines)::value> row(job, i);
      const double on_diagonal =
          cosines
              ? -row.scale * row.scale * pulls[i] / 2
              : job.weights.diagonal / 2 * derivative(broadcast(row.diagonal()), i, [i](const double* line) {
                  return broadcast(line[i]);
                })[0];
      along<double>(i, [&](const auto& read, const auto& write) {
        const Doubles entry = derivative(row.off_diagonal(read), i, read);
        write(row.entries, job.weights.off_diagonal / 2 * entry * row.scales(read));
      });
      row.entries[i] = static_cast<C>(on_diagonal);
    }
  };
  with_cosines(job, [&](auto cosines) {
    switch (job.norm) {
      case Norm::fro:
        return over_rows(cosines, [](Doubles entry, std::int64_t, const auto&) { return 2 * entry; });
      case Norm::l1:
        return over_rows(cosines, [](Doubles entry, std::int64_t, const auto&) { return sign(entry); });
      case Norm::l21:
        return over_rows(cosines, [&](Doubles entry, std::int64_t i, const auto& read) {
          return entry * (inverse_rows[i] + read(inverse_rows)) / 2;
        });
      case Norm::max:
        return;  // has one entry
    }
  });
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
