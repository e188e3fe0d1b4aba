#include "srip.h"

#include <memory>
#include <type_traits>

#include "../offsets.h"
#include "caches.h"
#include "dispatch.h"
#include "power_chain.h"
#include "tile_plan.h"

namespace ortho {
namespace {

// A matrix of more entries than this doesn't stay in a cache anyway: all threads share each of its passes.
constexpr std::int64_t shared_entries = 4'000'000;
// Up to this order float matrices are multiplied in double: near orthogonality R x is what is left of a
// difference, and the fewer its entries the less do their rounding errors average out.
constexpr std::int64_t double_order = 128;
constexpr std::int64_t most_parts = 32, least_part_entries = 500'000;

std::int64_t entries(const Matrix& matrix) { return matrix.shape.order * matrix.shape.depth; }

// The caller's index of each entry of a matrix's vector. Empty: the same.
using CallerIndices = std::vector<std::int64_t>;

CallerIndices caller_indices(const ColumnPermutation& permutation) {
  CallerIndices indices;
  for (const auto& [size, step] : permutation) {
    if (indices.empty()) indices.push_back(0);
    CallerIndices finer;
    finer.reserve(indices.size() * size);
    for (const std::int64_t base : indices) {
      for (std::int64_t i = 0; i < size; ++i) finer.push_back(base + i * step);
    }
    indices = std::move(finer);
  }
  return indices;
}

std::vector<CallerIndices> caller_indices(const std::vector<ColumnPermutation>& permutations) {
  std::vector<CallerIndices> indices;
  indices.reserve(permutations.size());
  for (const ColumnPermutation& permutation : permutations) indices.push_back(caller_indices(permutation));
  return indices;
}

std::int64_t caller_index(const CallerIndices& indices, std::int64_t i) {
  return indices.empty() ? i : indices[i];
}

// The matrices, and what is the same for all of them.
template <class C>
struct Iterations {
  const std::vector<Matrix>& matrices;
  std::vector<CallerIndices> indices;
  const C* start;
  std::vector<std::int64_t> offsets;  // of the vectors of each matrix
  SripOptions options;
  C* values;
  C* vectors;
  bool adjoints;
};

template <class T, class C>
PowerChain<T> begin_chain(const Iterations<C>& all, std::int64_t m, T* memory) {
  const std::int64_t order = all.matrices[m].shape.order;
  PowerChain<T> chain(order, all.options.iterations, all.adjoints, memory);
  for (std::int64_t i = 0; i < order; ++i)
    chain.start()[i] = static_cast<T>(all.start[all.offsets[m] + caller_index(all.indices[m], i)]);
  chain.begin();
  return chain;
}

// The value of a finished chain, and its pairs in the caller's order.
template <class T, class C>
void finish_chain(const Iterations<C>& all, std::int64_t m, const PowerChain<T>& chain) {
  all.values[m] = static_cast<C>(chain.value());
  if (!all.vectors) return;
  const std::int64_t order = chain.order(), pairs = pairs_of(all.options);
  C* own = all.vectors + 2 * pairs * all.offsets[m];
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    C* left = own + 2 * pair * order;
    C* right = left + order;
    for (std::int64_t i = 0; i < order; ++i) {
      const std::int64_t at = caller_index(all.indices[m], i);
      left[at] = static_cast<C>(chain.left(all.options.iterations - pair, i));
      right[at] = static_cast<C>(chain.right(all.options.iterations - pair, i));
    }
  }
}

// In bytes, what iterate_alone takes.
template <class T, class C>
std::size_t iteration_bytes(const Iterations<C>& all, std::int64_t m) {
  const Matrix& matrix = all.matrices[m];
  const std::int64_t order = matrix.shape.order;
  return sizeof(double) * order +
         sizeof(T) * (PowerChain<T>::memory(order, all.options.iterations, all.adjoints) +
                      cpu_kernels_of<T>().pass_memory(matrix, 1));
}

// A matrix that one thread takes through all steps, while it is in the cache.
template <class T, class C>
void iterate_alone(const Iterations<C>& all, std::int64_t m, void* memory) {
  const Matrix& matrix = all.matrices[m];
  const auto [order, depth] = matrix.shape;
  auto* product = static_cast<double*>(memory);
  T* own = reinterpret_cast<T*>(product + order);
  PowerChain<T> chain = begin_chain(all, m, own);
  T* pass = own + PowerChain<T>::memory(order, all.options.iterations, all.adjoints);
  while (!chain.done()) {
    std::fill_n(product, order, 0.0);
    cpu_kernels_of<T>().gram_times_vector(matrix, 0, depth, chain.input(), product, pass);
    chain.advance(product);
  }
  finish_chain(all, m, chain);
}

// A matrix whose every pass is shared out over all threads, in parts that don't depend on how many there are.
template <class T, class C>
void iterate_together(const Iterations<C>& all, std::int64_t m, Workers& workers) {
  const Matrix& matrix = all.matrices[m];
  const std::int64_t order = matrix.shape.order;
  Capacity capacity;
  capacity.range_entries = std::max(least_part_entries, entries(matrix) / most_parts);
  const std::vector<DepthRange> parts = plan_ranges({matrix.shape}, capacity);
  const auto count = static_cast<std::int64_t>(parts.size());
  const std::unique_ptr<double[]> products(new double[count * order]);
  const std::unique_ptr<T[]> own(new T[PowerChain<T>::memory(order, all.options.iterations, all.adjoints)]);
  const Kernels<T>& kernels = cpu_kernels_of<T>();
  const std::size_t memory = sizeof(T) * kernels.pass_memory(matrix, 1);
  PowerChain<T> chain = begin_chain(all, m, own.get());
  while (!chain.done()) {
    for_each_item(workers, count, static_cast<double>(entries(matrix)), memory,
                  [&](std::int64_t part, void* pass) {
                    double* product = products.get() + part * order;
                    std::fill_n(product, order, 0.0);
                    kernels.gram_times_vector(matrix, parts[part].begin, parts[part].end, chain.input(),
                                              product, static_cast<T*>(pass));
                  });
    for (std::int64_t part = 1; part < count; ++part) {
      for (std::int64_t i = 0; i < order; ++i) products[i] += products[part * order + i];
    }
    chain.advance(products.get());
  }
  finish_chain(all, m, chain);
}

template <class C>
bool uses_fp64(const Matrix& matrix) {
  return std::is_same_v<C, double> || matrix.shape.order <= double_order;
}

// Calls body(T()) with the type of the arithmetic of this matrix.
template <class C, class Body>
auto in_arithmetic(const Matrix& matrix, const Body& body) {
  return uses_fp64<C>(matrix) ? body(double{}) : body(C{});
}

}  // namespace

template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<ColumnPermutation>& permutations,
          const C* start, SripOptions options, C* values, C* vectors, Workers& workers) {
  const Iterations<C> all{
      matrices, caller_indices(permutations), start, order_offsets(matrices), options, values,
      vectors,  vectors && options.through};
  std::vector<std::int64_t> alone;
  std::size_t memory = 0;
  double work = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    if (entries(matrices[m]) > shared_entries) {
      in_arithmetic<C>(matrices[m],
                       [&](auto number) { iterate_together<decltype(number)>(all, m, workers); });
      continue;
    }
    alone.push_back(m);
    memory = std::max(memory, in_arithmetic<C>(matrices[m], [&](auto number) {
                        return iteration_bytes<decltype(number)>(all, m);
                      }));
    work += static_cast<double>(entries(matrices[m])) * options.iterations / 4;
  }
  std::stable_sort(alone.begin(), alone.end(), [&](std::int64_t a, std::int64_t b) {
    return entries(matrices[a]) > entries(matrices[b]);
  });
  for_each_item(
      workers, static_cast<std::int64_t>(alone.size()), work, memory, [&](std::int64_t item, void* own) {
        in_arithmetic<C>(matrices[alone[item]],
                         [&](auto number) { iterate_alone<decltype(number)>(all, alone[item], own); });
      });
}

template <class C>
void gram_times_vectors(const std::vector<Matrix>& matrices, const C* vectors, double* products,
                        Workers& workers) {
  const std::vector<std::int64_t> offsets = order_offsets(matrices);
  std::vector<Shape> shapes;
  std::size_t memory = 0;
  double work = 0;
  for (const Matrix& matrix : matrices) {
    shapes.push_back(matrix.shape);
    work += static_cast<double>(entries(matrix)) / 4;
    memory = std::max(memory, in_arithmetic<C>(matrix, [&](auto number) {
                        using T = decltype(number);
                        return sizeof(T) * (matrix.shape.order + cpu_kernels_of<T>().pass_memory(matrix, 1));
                      }));
  }
  Capacity capacity;
  capacity.range_entries = least_part_entries;
  const std::vector<DepthRange> ranges = plan_ranges(shapes, capacity);
  std::vector<std::int64_t> part_offsets;
  std::int64_t total = 0;
  for (const DepthRange& range : ranges) {
    part_offsets.push_back(total);
    total += shapes[range.matrix].order;
  }
  const std::unique_ptr<double[]> parts(new double[total]());
  for_each_item(
      workers, static_cast<std::int64_t>(ranges.size()), work, memory, [&](std::int64_t item, void* own) {
        const auto [m, begin, end] = ranges[item];
        in_arithmetic<C>(matrices[m], [&](auto number) {
          using T = decltype(number);
          T* vector = static_cast<T*>(own);
          std::copy_n(vectors + offsets[m], shapes[m].order, vector);
          cpu_kernels_of<T>().gram_times_vector(matrices[m], begin, end, vector,
                                                parts.get() + part_offsets[item], vector + shapes[m].order);
        });
      });
  for (std::size_t m = 0; m < matrices.size(); ++m) std::fill_n(products + offsets[m], shapes[m].order, 0.0);
  for (std::size_t item = 0; item < ranges.size(); ++item) {
    const std::int64_t m = ranges[item].matrix;
    for (std::int64_t i = 0; i < shapes[m].order; ++i)
      products[offsets[m] + i] += parts[part_offsets[item] + i];
  }
}

template <class C>
void srip_backward(const C* factors, const std::vector<Matrix>& matrices,
                   const std::vector<ColumnPermutation>& permutations, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, Workers& workers) {
  const std::vector<CallerIndices> indices = caller_indices(permutations);
  const std::vector<std::int64_t> offsets = order_offsets(matrices);
  const Kernels<C>& kernels = cpu_kernels_of<C>();
  std::vector<Shape> shapes(matrices.size());
  std::int64_t memory = 0;
  double work = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    if (!gradients[m].data) continue;
    shapes[m] = matrices[m].shape;
    memory = std::max(memory, 2 * pairs * shapes[m].order + kernels.pass_memory(matrices[m], 2 * pairs));
    work += static_cast<double>(entries(matrices[m])) * pairs / 4;
  }
  const std::vector<DepthRange> ranges = plan_ranges(shapes);
  const bool non_temporal = outgrows_caches(matrices, gradients);
  for_each_item(workers, static_cast<std::int64_t>(ranges.size()), work, memory * sizeof(C),
                [&](std::int64_t item, void* scratch) {
                  const auto [m, begin, end] = ranges[item];
                  const std::int64_t order = shapes[m].order;
                  C* own = static_cast<C*>(scratch);
                  const C* given = vectors + 2 * pairs * offsets[m];
                  if (!indices[m].empty()) {
                    for (std::int64_t v = 0; v < 2 * pairs; ++v) {
                      for (std::int64_t i = 0; i < order; ++i)
                        own[v * order + i] = given[v * order + indices[m][i]];
                    }
                    given = own;
                  }
                  kernels.rank_update({matrices[m], gradients[m], begin, end, given, pairs,
                                       static_cast<double>(factors[m]), non_temporal},
                                      own + 2 * pairs * order);
                });
}

template void srip(const std::vector<Matrix>&, const std::vector<ColumnPermutation>&, const float*,
                   SripOptions, float*, float*, Workers&);
template void srip(const std::vector<Matrix>&, const std::vector<ColumnPermutation>&, const double*,
                   SripOptions, double*, double*, Workers&);
template void gram_times_vectors(const std::vector<Matrix>&, const float*, double*, Workers&);
template void gram_times_vectors(const std::vector<Matrix>&, const double*, double*, Workers&);
template void srip_backward(const float*, const std::vector<Matrix>&, const std::vector<ColumnPermutation>&,
                            const float*, std::int64_t, const std::vector<Gradient>&, Workers&);
template void srip_backward(const double*, const std::vector<Matrix>&, const std::vector<ColumnPermutation>&,
                            const double*, std::int64_t, const std::vector<Gradient>&, Workers&);

}  // namespace ortho
