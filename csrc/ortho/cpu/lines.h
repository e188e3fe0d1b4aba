// Sums over lines: runs of numbers that lie next to each other in memory.
#pragma once

#include "simd.h"

namespace ortho::ORTHO_LEVEL {
namespace {

template <class S>
struct Lines {
  S* first;
  std::int64_t stride;
  S* operator[](std::int64_t i) const { return first + i * stride; }
  Lines from(std::int64_t i) const { return {first + i * stride, stride}; }
};

template <class T>
void clear(T* target, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) target[i] = T(0);
}

// total += part; part = 0
template <class T>
void move_into(double* total, T* part, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) total[i] += static_cast<double>(part[i]);
  clear(part, count);
}

// Calls step(read, write) for vector after vector of lines of `count` numbers.
template <class T, class Step>
ORTHO_INLINE void along(std::int64_t count, const Step& step) {
  std::int64_t c = 0;
  for (; c + lanes<T> <= count; c += lanes<T>) {
    step([c](const auto* line) { return load<T>(line + c); },
         [c](auto* line, Vector<T> value) { store<std::decay_t<decltype(*line)>, T>(line + c, value); });
  }
  if (c < count) {
    const std::int64_t rest = count - c;
    step([c, rest](const auto* line) { return load_some<T>(line + c, rest); },
         [c, rest](auto* line, Vector<T> value) {
           store_some<std::decay_t<decltype(*line)>, T>(line + c, value, rest);
         });
  }
}

// How many lines ahead to prefetch: the hardware does not predict lines that are far apart.
constexpr std::int64_t prefetch_distance = 8;

// ---- target q (+)= sum over s of factors[q][s] * source s ------------------------------------------------

template <int Targets, int Sources, bool Accumulate, class T, class D, class S>
void mix_block(const Lines<D>& targets, const Lines<S>& sources, std::int64_t length,
               const T (&numbers)[4][4]) {
  Vector<T> factors[Targets][Sources];
#pragma GCC unroll 4
  for (int q = 0; q < Targets; ++q) {
#pragma GCC unroll 4
    for (int s = 0; s < Sources; ++s) factors[q][s] = broadcast<T>(numbers[q][s]);
  }
  const auto step = [&](const auto& read, const auto& write) {
    Vector<T> source[Sources];
#pragma GCC unroll 4
    for (int s = 0; s < Sources; ++s) source[s] = read(sources[s]);
#pragma GCC unroll 4
    for (int q = 0; q < Targets; ++q) {
      Vector<T> sum = source[0] * factors[q][0];
#pragma GCC unroll 4
      for (int s = 1; s < Sources; ++s) sum += source[s] * factors[q][s];
      if constexpr (Accumulate) sum += read(targets[q]);
      write(targets[q], sum);
    }
  };
  std::int64_t c = 0;
  for (; c + lanes<T> <= length; c += lanes<T>) {
#pragma GCC unroll 4
    for (int s = 0; s < Sources; ++s) __builtin_prefetch(sources[s + prefetch_distance] + c);
    step([&](const auto* line) { return load<T>(line + c); },
         [&](D* line, Vector<T> value) { store<D, T>(line + c, value); });
  }
  if (const std::int64_t left = length - c; left > 0) {
    step([&](const auto* line) { return load_some<T>(line + c, left); },
         [&](D* line, Vector<T> value) { store_some<D, T>(line + c, value, left); });
  }
}

template <int Targets, int Sources, class T, class D, class S>
void mix_sources(const Lines<D>& targets, const Lines<S>& sources, std::int64_t length,
                 const T (&factors)[4][4], bool accumulate) {
  if constexpr (std::is_same_v<D, T>) {  // sums are not kept in a format of fewer digits
    if (accumulate) return mix_block<Targets, Sources, true, T>(targets, sources, length, factors);
  }
  mix_block<Targets, Sources, false, T>(targets, sources, length, factors);
}

template <int Targets, class T, class D, class S, class Factor>
void mix_targets(const Lines<D>& targets, std::int64_t target, const Lines<S>& sources,
                 std::int64_t source_count, std::int64_t length, const Factor& factor, bool accumulate) {
  const Lines<D> own = targets.from(target);
  for (std::int64_t s = 0; s < source_count;) {
    const std::int64_t left = source_count - s;
    T factors[4][4];
    for (int q = 0; q < Targets; ++q) {
      for (int i = 0; i < 4 && i < left; ++i) factors[q][i] = factor(target + q, s + i);
    }
    const Lines<S> some = sources.from(s);
    if (left >= 4) {
      mix_sources<Targets, 4>(own, some, length, factors, accumulate);
    } else if (left >= 2) {
      mix_sources<Targets, 2>(own, some, length, factors, accumulate);
    } else {
      mix_sources<Targets, 1>(own, some, length, factors, accumulate);
    }
    s += left >= 4 ? 4 : left >= 2 ? 2 : 1;
    accumulate = true;
  }
}

// Targets of a storage format take at most four sources, or two, or one, and no others.
template <class T, class D, class S, class Factor>
void mix(const Lines<D>& targets, std::int64_t target_count, const Lines<S>& sources,
         std::int64_t source_count, std::int64_t length, const Factor& factor, bool accumulate) {
  std::int64_t q = 0;
  for (; q + 4 <= target_count; q += 4)
    mix_targets<4, T>(targets, q, sources, source_count, length, factor, accumulate);
  for (; q + 2 <= target_count; q += 2)
    mix_targets<2, T>(targets, q, sources, source_count, length, factor, accumulate);
  for (; q < target_count; ++q)
    mix_targets<1, T>(targets, q, sources, source_count, length, factor, accumulate);
}

// ---- products of lines with vectors --------------------------------------------------------------------

// sums[l][v] += line l * vector v, lane by lane.
template <int Count, int Vectors, class T, class S>
ORTHO_INLINE void multiply_block(const Lines<S>& lines, const Lines<const T>& vectors, std::int64_t length,
                                 Vector<T> (&sums)[Count][Vectors]) {
  const auto step = [&](const auto& read) {
    Vector<T> factors[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) factors[v] = read(vectors[v]);
#pragma GCC unroll 4
    for (int l = 0; l < Count; ++l) {
      const Vector<T> line = read(lines[l]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[l][v] += line * factors[v];
    }
  };
  std::int64_t c = 0;
  for (; c + lanes<T> <= length; c += lanes<T>) {
    step([&](const auto* line) { return load<T>(line + c); });
  }
  if (const std::int64_t left = length - c; left > 0) {
    step([&](const auto* line) { return load_some<T>(line + c, left); });
  }
}

// dots[l * dot_stride + v] = <line l, vector v>
template <int Count, int Vectors, class T, class S>
void dot_block(const Lines<S>& lines, const Lines<const T>& vectors, std::int64_t length, T* dots,
               std::int64_t dot_stride) {
  Vector<T> sums[Count][Vectors] = {};
  multiply_block(lines, vectors, length, sums);
  for (int l = 0; l < Count; ++l) {
    for (int v = 0; v < Vectors; ++v) dots[l * dot_stride + v] = sum_of_lanes<T>(sums[l][v]);
  }
}

template <int Count, class T, class S>
void dot_vectors(const Lines<S>& lines, const Lines<const T>& vectors, std::int64_t vector_count,
                 std::int64_t length, T* dots, std::int64_t dot_stride) {
  std::int64_t v = 0;
  if constexpr (vector_bytes == 64) {  // 16 sums: more than the registers of the other levels
    for (; v + 4 <= vector_count; v += 4)
      dot_block<Count, 4>(lines, vectors.from(v), length, dots + v, dot_stride);
  }
  for (; v + 2 <= vector_count; v += 2)
    dot_block<Count, 2>(lines, vectors.from(v), length, dots + v, dot_stride);
  for (; v < vector_count; ++v) dot_block<Count, 1>(lines, vectors.from(v), length, dots + v, dot_stride);
}

template <class T, class S>
void dot_lines(const Lines<S>& lines, std::int64_t count, const Lines<const T>& vectors,
               std::int64_t vector_count, std::int64_t length, T* dots, std::int64_t dot_stride) {
  std::int64_t l = 0;
  for (; l + 4 <= count; l += 4) {
    dot_vectors<4>(lines.from(l), vectors, vector_count, length, dots + l * dot_stride, dot_stride);
  }
  for (; l < count; ++l) {
    dot_vectors<1>(lines.from(l), vectors, vector_count, length, dots + l * dot_stride, dot_stride);
  }
}

// One vector of partial sums a line, kept in memory: partial[l] += line l * vector, lane by lane.
template <class T, class S>
void add_products(const Lines<S>& lines, std::int64_t count, const T* vector, std::int64_t length,
                  T* partial) {
  const auto some = [&](auto block, std::int64_t l) {
    constexpr int n = decltype(block)::value;
    Vector<T> sums[n][1];
    for (int i = 0; i < n; ++i) sums[i][0] = load<T>(partial + (l + i) * lanes<T>);
    multiply_block(lines.from(l), Lines<const T>{vector, 0}, length, sums);
    for (int i = 0; i < n; ++i) store<T, T>(partial + (l + i) * lanes<T>, sums[i][0]);
  };
  std::int64_t l = 0;
  for (; l + 4 <= count; l += 4) some(std::integral_constant<int, 4>{}, l);
  for (; l < count; ++l) some(std::integral_constant<int, 1>{}, l);
}

}  // namespace
}  // namespace ortho::ORTHO_LEVEL
