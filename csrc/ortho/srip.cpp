#include "srip.h"

#include <memory>
#include <type_traits>

#include "caches.h"
#include "cpu_dispatch.h"
#include "packing.h"
#include "plan.h"
#include "power_chain.h"
#include "soft_orthogonality.h"

namespace ortho {
namespace {

// A matrix of more entries than this doesn't stay in a cache anyway: all threads share each of its passes.
constexpr std::int64_t shared_entries = 4'000'000;
constexpr std::int64_t most_parts = 32, least_part_entries = 500'000;

std::int64_t entries(const Matrix& matrix) { return matrix.shape.order * matrix.shape.depth; }

std::int64_t caller_index(const EntryOrder& entry_order, std::int64_t i) {
  return entry_order.empty() ? i : entry_order[i];
}

std::vector<std::int64_t> order_offsets(const std::vector<Matrix>& matrices) {
  return packed_offsets(matrices, [](std::int64_t order) { return order; });
}

// What the caller holds of one matrix.
template <class C>
struct Task {
  const Matrix& matrix;
  const EntryOrder& entry_order;
  const C* start;
  C* value;
  C* vectors;
  SripOptions options;

  bool adjoints() const { return vectors && options.through; }
};

template <class T, class C>
PowerChain<T> begin_chain(const Task<C>& task, T* memory) {
  const std::int64_t order = task.matrix.shape.order;
  PowerChain<T> chain(order, task.options.iterations, task.adjoints(), memory);
  for (std::int64_t i = 0; i < order; ++i)
    chain.start()[i] = static_cast<T>(task.start[caller_index(task.entry_order, i)]);
  chain.begin();
  return chain;
}

template <class T, class C>
void end_chain(const PowerChain<T>& chain, const Task<C>& task) {
  *task.value = static_cast<C>(chain.value());
  if (!task.vectors) return;
  const std::int64_t order = task.matrix.shape.order;
  for (std::int64_t pair = 0; pair < pairs_of(task.options); ++pair) {
    C* left = task.vectors + 2 * pair * order;
    C* right = left + order;
    for (std::int64_t i = 0; i < order; ++i) {
      const std::int64_t at = caller_index(task.entry_order, i);
      left[at] = static_cast<C>(chain.left(task.options.iterations - pair, i));
      right[at] = static_cast<C>(chain.right(task.options.iterations - pair, i));
    }
  }
}

template <class T, class C>
std::size_t memory_of(const Task<C>& task) {
  const std::int64_t order = task.matrix.shape.order;
  return sizeof(double) * order +
         sizeof(T) * (PowerChain<T>::memory(order, task.options.iterations, task.adjoints()) +
                      cpu_kernels_in<T>().pass_memory(task.matrix, 1));
}

// A matrix that one thread takes through all steps, while it is in the cache.
template <class T, class C>
void iterate_alone(const Task<C>& task, void* memory) {
  const auto [order, depth] = task.matrix.shape;
  auto* product = static_cast<double*>(memory);
  T* own = reinterpret_cast<T*>(product + order);
  PowerChain<T> chain = begin_chain(task, own);
  T* pass = own + PowerChain<T>::memory(order, task.options.iterations, task.adjoints());
  while (!chain.done()) {
    std::fill_n(product, order, 0.0);
    cpu_kernels_in<T>().gram_times_vector(task.matrix, 0, depth, chain.input(), product, pass);
    chain.advance(product);
  }
  end_chain(chain, task);
}

// A matrix whose every pass is shared out over all threads, in parts that don't depend on how many there are.
template <class T, class C>
void iterate_together(const Task<C>& task, Workers& workers) {
  const std::int64_t order = task.matrix.shape.order;
  PlanLimits limits;
  limits.range_entries = std::max(least_part_entries, entries(task.matrix) / most_parts);
  const std::vector<DepthRange> parts = plan_ranges({task.matrix.shape}, limits);
  const auto count = static_cast<std::int64_t>(parts.size());
  const std::unique_ptr<double[]> products(new double[count * order]);
  const std::unique_ptr<T[]> own(
      new T[PowerChain<T>::memory(order, task.options.iterations, task.adjoints())]);
  const Kernels<T>& kernels = cpu_kernels_in<T>();
  const std::size_t memory = sizeof(T) * kernels.pass_memory(task.matrix, 1);
  PowerChain<T> chain = begin_chain(task, own.get());
  while (!chain.done()) {
    for_each_item(workers, count, static_cast<double>(entries(task.matrix)), memory,
                  [&](std::int64_t part, void* pass) {
                    double* product = products.get() + part * order;
                    std::fill_n(product, order, 0.0);
                    kernels.gram_times_vector(task.matrix, parts[part].begin, parts[part].end, chain.input(),
                                              product, static_cast<T*>(pass));
                  });
    for (std::int64_t part = 1; part < count; ++part) {
      for (std::int64_t i = 0; i < order; ++i) products[i] += products[part * order + i];
    }
    chain.advance(products.get());
  }
  end_chain(chain, task);
}

template <class C>
bool in_double(const Matrix& matrix) {
  return std::is_same_v<C, double> || matrix.shape.order <= small_order;
}

}  // namespace

template <class C>
void srip(const std::vector<Matrix>& matrices, const std::vector<EntryOrder>& entry_orders, const C* start,
          SripOptions options, C* values, C* vectors, Workers& workers) {
  const std::vector<std::int64_t> offsets = order_offsets(matrices);
  const auto task_of = [&](std::int64_t m) {
    C* own = vectors ? vectors + 2 * pairs_of(options) * offsets[m] : nullptr;
    return Task<C>{matrices[m], entry_orders[m], start + offsets[m], values + m, own, options};
  };
  std::vector<std::int64_t> alone;
  std::size_t memory = 0;
  double work = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const Task<C> task = task_of(m);
    if (entries(matrices[m]) > shared_entries) {
      if (in_double<C>(matrices[m])) {
        iterate_together<double, C>(task, workers);
      } else {
        iterate_together<C, C>(task, workers);
      }
      continue;
    }
    alone.push_back(m);
    memory = std::max(memory, in_double<C>(matrices[m]) ? memory_of<double>(task) : memory_of<C>(task));
    work += static_cast<double>(entries(matrices[m])) * options.iterations / 4;
  }
  std::stable_sort(alone.begin(), alone.end(), [&](std::int64_t a, std::int64_t b) {
    return entries(matrices[a]) > entries(matrices[b]);
  });
  for_each_item(workers, static_cast<std::int64_t>(alone.size()), work, memory,
                [&](std::int64_t item, void* own) {
                  const Task<C> task = task_of(alone[item]);
                  if (in_double<C>(task.matrix)) {
                    iterate_alone<double, C>(task, own);
                  } else {
                    iterate_alone<C, C>(task, own);
                  }
                });
}

template <class C>
void srip_backward(const C* grad_values, const std::vector<Matrix>& matrices,
                   const std::vector<EntryOrder>& entry_orders, const C* vectors, std::int64_t pairs,
                   const std::vector<Gradient>& gradients, Workers& workers) {
  const std::vector<std::int64_t> offsets = order_offsets(matrices);
  const Kernels<C>& kernels = cpu_kernels_in<C>();
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
  const bool past_cache = outgrows_caches(matrices, gradients);
  for_each_item(workers, static_cast<std::int64_t>(ranges.size()), work, memory * sizeof(C),
                [&](std::int64_t item, void* scratch) {
                  const auto [m, begin, end] = ranges[item];
                  const std::int64_t order = shapes[m].order;
                  C* own = static_cast<C*>(scratch);
                  const C* given = vectors + 2 * pairs * offsets[m];
                  if (!entry_orders[m].empty()) {
                    for (std::int64_t v = 0; v < 2 * pairs; ++v) {
                      for (std::int64_t i = 0; i < order; ++i)
                        own[v * order + i] = given[v * order + entry_orders[m][i]];
                    }
                    given = own;
                  }
                  kernels.rank_update({matrices[m], gradients[m], begin, end, given, pairs,
                                       static_cast<double>(grad_values[m]), past_cache},
                                      own + 2 * pairs * order);
                });
}

template void srip(const std::vector<Matrix>&, const std::vector<EntryOrder>&, const float*, SripOptions,
                   float*, float*, Workers&);
template void srip(const std::vector<Matrix>&, const std::vector<EntryOrder>&, const double*, SripOptions,
                   double*, double*, Workers&);
template void srip_backward(const float*, const std::vector<Matrix>&, const std::vector<EntryOrder>&,
                            const float*, std::int64_t, const std::vector<Gradient>&, Workers&);
template void srip_backward(const double*, const std::vector<Matrix>&, const std::vector<EntryOrder>&,
                            const double*, std::int64_t, const std::vector<Gradient>&, Workers&);

}  // namespace ortho
