// Runs every kernel over many layouts with several threads and compares the bits with those of one thread,
// and a value with its definition. Meant to be built with sanitizers; every buffer is allocated apart and
// exactly as large as it must be.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "ortho/cpu/convolution.h"
#include "ortho/cpu/cross_gram.h"
#include "ortho/cpu/residual_norm.h"
#include "ortho/cpu/soft_orthogonality.h"
#include "ortho/cpu/srip.h"

namespace {

class Threads final : public ortho::Workers {
 public:
  explicit Threads(std::int64_t count) : count_(count) {}
  std::int64_t count() const override { return count_; }
  void start(std::int64_t workers, void (*run)(void*), void* context) override {
    std::vector<std::thread> threads;
    for (std::int64_t i = 0; i < workers; ++i) threads.emplace_back(run, context);
    for (std::thread& thread : threads) thread.join();
  }

 private:
  std::int64_t count_;
};

struct Strided {
  std::int64_t order, depth, order_stride, depth_stride;
};

// Every option, or those that a list of large matrices can afford: sanitizers are slow.
struct Options {
  std::vector<ortho::Precision> precisions;
  std::vector<bool> accumulate, through;
  std::vector<ortho::Norm> norms;  // of cross Grams
  std::vector<std::pair<ortho::Unit, ortho::Norm>> residual_norms;
};
const Options every{{ortho::Precision::highest, ortho::Precision::medium},
                    {false, true},
                    {true, false},
                    {ortho::Norm::fro, ortho::Norm::l1, ortho::Norm::l21, ortho::Norm::max},
                    {{ortho::Unit::none, ortho::Norm::l1},
                     {ortho::Unit::none, ortho::Norm::max},
                     {ortho::Unit::vectors, ortho::Norm::l21},
                     {ortho::Unit::vectors, ortho::Norm::fro},
                     {ortho::Unit::lines, ortho::Norm::l21}}};
const Options few{{ortho::Precision::highest},
                  {false},
                  {true},
                  {ortho::Norm::l21},
                  {{ortho::Unit::lines, ortho::Norm::l21}}};

// Some number within 0.2.
template <class S>
void fill(S* numbers, std::int64_t count, ortho::Storage storage, std::mt19937& random) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float value = (static_cast<std::int32_t>(random()) >> 8) * (0.2f / (1 << 23));
    if constexpr (sizeof(S) == 2) {
      std::uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      numbers[i].bits = static_cast<std::uint16_t>(bits >> 16);  // for float16 just some number
      if (storage == ortho::Storage::float16) numbers[i].bits &= 0xbbff;
    } else {
      numbers[i] = static_cast<S>(value);
    }
  }
}

template <class S, class C>
void append(std::vector<C>& all, const S* numbers, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (sizeof(S) == 2) {
      all.push_back(static_cast<C>(numbers[i].bits));
    } else {
      all.push_back(static_cast<C>(numbers[i]));
    }
  }
}

// All results of one run, to be compared bit by bit.
template <class S, class C>
std::vector<C> run(const std::vector<Strided>& layouts, ortho::Storage storage, const Options& options,
                   std::int64_t threads) {
  Threads workers(threads);
  std::mt19937 random(7);
  std::vector<std::unique_ptr<S[]>> data;
  std::vector<std::unique_ptr<S[]>> targets;
  std::vector<ortho::Matrix> matrices;
  std::vector<ortho::Gradient> gradients;
  std::vector<ortho::ColumnPermutation> permutations;
  std::int64_t entries = 0, order = 0;
  for (const Strided& l : layouts) {
    const std::int64_t span =
        l.order && l.depth ? 1 + (l.order - 1) * l.order_stride + (l.depth - 1) * l.depth_stride : 0;
    data.emplace_back(new S[span]);
    fill(data.back().get(), span, storage, random);
    matrices.push_back({data.back().get(), storage, {l.order, l.depth}, l.order_stride, l.depth_stride});
    targets.emplace_back(new S[l.order * l.depth]);
    const bool upright = l.order_stride >= l.depth_stride;
    gradients.push_back({targets.back().get(), upright ? l.depth : 1, upright ? 1 : l.order});
    entries += ortho::triangle(l.order);
    order += l.order;
    // All even entries first, then all odd ones.
    const ortho::ColumnPermutation halves{{2, 1}, {l.order / 2, 2}};
    permutations.push_back(l.order % 2 ? ortho::ColumnPermutation{} : halves);
  }
  std::vector<C> all(matrices.size()), factors(matrices.size(), C(1));
  const auto keep_gradients = [&] {
    for (std::size_t m = 0; m < matrices.size(); ++m)
      append(all, targets[m].get(), layouts[m].order * layouts[m].depth);
  };
  std::unique_ptr<C[]> residuals(new C[entries]);
  ortho::soft_orthogonality<C>(matrices, {}, all.data(), residuals.get(), workers);
  all.insert(all.end(), residuals.get(), residuals.get() + entries);
  // Overwrites, then adds to what that left.
  const auto overwrite_and_add = [&](const auto& backward) {
    for (const bool accumulate : options.accumulate) {
      for (ortho::Gradient& gradient : gradients) gradient.accumulate = accumulate;
      backward();
      keep_gradients();
    }
  };
  for (const ortho::Precision precision : options.precisions) {
    overwrite_and_add([&] {
      ortho::soft_orthogonality_backward<C>(factors.data(), matrices, residuals.get(), gradients, precision,
                                            workers);
    });
  }
  // Each matrix against the first half of its own rows.
  std::vector<ortho::Pair> pairs;
  std::vector<std::unique_ptr<S[]>> half_targets;
  std::vector<ortho::Gradient> half_gradients;
  std::int64_t products = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const auto [order, depth] = matrices[m].shape;
    pairs.push_back({matrices[m], matrices[m]});
    pairs[m].b.shape.order = order / 2;
    half_targets.emplace_back(new S[order / 2 * depth]());
    half_gradients.push_back({half_targets[m].get(), depth, 1});
    products += order * (order / 2);
  }
  for (const ortho::Norm norm : options.norms) {
    std::vector<C> values(pairs.size());
    std::unique_ptr<C[]> kept(new C[products]);
    ortho::cross_gram<C>(pairs, norm, values.data(), nullptr, workers);
    ortho::cross_gram<C>(pairs, norm, values.data(), kept.get(), workers);
    all.insert(all.end(), values.begin(), values.end());
    all.insert(all.end(), kept.get(), kept.get() + products);
    if (norm != options.norms.back()) continue;  // the gradients of all norms are one product
    ortho::cross_gram_backward<C>(factors.data(), pairs, kept.get(), gradients, half_gradients,
                                  options.precisions.back(), workers);
    keep_gradients();
    for (std::size_t m = 0; m < pairs.size(); ++m)
      append(all, half_targets[m].get(), layouts[m].order / 2 * layouts[m].depth);
  }
  for (const auto& [unit, norm] : options.residual_norms) {
    const std::vector<ortho::Unit> units(matrices.size(), unit);
    std::vector<C> values(matrices.size());
    ortho::residual_norm<C>(matrices, norm, units, {0.5, 2}, true, values.data(), residuals.get(), workers);
    all.insert(all.end(), values.begin(), values.end());
    all.insert(all.end(), residuals.get(), residuals.get() + entries);
    if (unit != ortho::Unit::lines) continue;  // its gradients are those of soft orthogonality
    overwrite_and_add([&] {
      ortho::residual_norm_backward<C>(factors.data(), matrices, units, residuals.get(), gradients,
                                       ortho::Precision::highest, workers);
    });
  }
  for (const bool through : options.through) {
    const ortho::SripOptions srip{3, through};
    const std::int64_t pairs = ortho::pairs_of(srip);
    std::unique_ptr<C[]> start(new C[order]), vectors(new C[2 * pairs * order]);
    for (std::int64_t i = 0; i < order; ++i) start[i] = static_cast<C>(i % 5) - C(1.5);
    std::vector<C> values(matrices.size());
    ortho::srip<C>(matrices, permutations, start.get(), srip, values.data(), nullptr, workers);
    ortho::srip<C>(matrices, permutations, start.get(), srip, values.data(), vectors.get(), workers);
    all.insert(all.end(), values.begin(), values.end());
    all.insert(all.end(), vectors.get(), vectors.get() + 2 * pairs * order);
    overwrite_and_add([&] {
      ortho::srip_backward<C>(factors.data(), matrices, permutations, vectors.get(), pairs, gradients,
                              workers);
    });
  }
  return all;
}

struct Kernel {
  std::int64_t filters, channels, height, width;
  std::int64_t stride, padding;
  bool channels_last;
};

template <class S, class C>
std::vector<C> run_convolutions(ortho::Storage storage, std::int64_t threads) {
  const std::vector<Kernel> given = {
      {1, 1, 1, 1, 1, 0, false},  {13, 5, 3, 3, 1, 2, false}, {13, 5, 3, 3, 1, 2, true},
      {70, 3, 2, 5, 2, 4, false}, {70, 17, 3, 3, 2, 1, true}, {130, 9, 3, 3, 1, 1, false},
      {5, 0, 3, 3, 1, 2, false},  {0, 4, 3, 3, 1, 2, false},  {9, 40, 1, 1, 2, 1, false},
  };
  Threads workers(threads);
  std::mt19937 random(7);
  std::vector<std::unique_ptr<S[]>> data, targets;
  std::vector<ortho::Convolution> kernels;
  std::vector<ortho::ConvolutionGradient> gradients;
  std::vector<std::vector<ortho::Shift>> shifts;
  std::vector<std::int64_t> sizes;
  std::int64_t entries = 0;
  for (const Kernel& k : given) {
    const std::int64_t taps = k.height * k.width, size = k.filters * k.channels * taps;
    data.emplace_back(new S[size]);
    targets.emplace_back(new S[size]);
    sizes.push_back(size);
    fill(data.back().get(), size, storage, random);
    ortho::Convolution kernel{data.back().get(), storage, k.filters, k.channels, k.height, k.width};
    kernel.filter_stride = k.channels * taps;
    kernel.channel_stride = k.channels_last ? 1 : taps;
    kernel.x_stride = k.channels_last ? k.channels : 1;
    kernel.y_stride = k.width * kernel.x_stride;
    kernels.push_back(kernel);
    gradients.push_back({targets.back().get(), kernel.filter_stride, kernel.channel_stride, kernel.y_stride,
                         kernel.x_stride});
    const std::int64_t middle = k.padding / k.stride;
    shifts.push_back(
        ortho::shifts_of(kernel, {{k.stride, k.stride}, {k.padding, k.padding}, {middle, middle}}));
    entries += ortho::residual_size(kernel, shifts.back());
  }
  std::vector<C> all(kernels.size()), factors(kernels.size(), C(1));
  std::unique_ptr<C[]> residuals(new C[entries]);
  ortho::convolution_orthogonality<C>(kernels, shifts, all.data(), nullptr, workers);
  ortho::convolution_orthogonality<C>(kernels, shifts, all.data(), residuals.get(), workers);
  append(all, residuals.get(), entries);
  for (const bool accumulate : {false, true}) {
    for (ortho::ConvolutionGradient& gradient : gradients) gradient.accumulate = accumulate;
    ortho::convolution_orthogonality_backward<C>(factors.data(), kernels, shifts, residuals.get(), gradients,
                                                 workers);
    for (std::size_t k = 0; k < targets.size(); ++k) append(all, targets[k].get(), sizes[k]);
  }
  return all;
}

template <class C>
bool agree(const char* name, const std::vector<C>& alone, const std::vector<C>& together) {
  bool same = alone.size() == together.size();
  for (std::size_t i = 0; same && i < alone.size(); ++i)
    same = alone[i] == together[i] && std::isfinite(alone[i]);
  std::printf("%s: %zu numbers %s\n", name, alone.size(), same ? "agree" : "DIFFER");
  return same;
}

template <class S, class C>
bool check(const char* name, const std::vector<Strided>& layouts, ortho::Storage storage,
           const Options& options = every) {
  return agree(name, run<S, C>(layouts, storage, options, 1), run<S, C>(layouts, storage, options, 3));
}

template <class S, class C>
bool check_convolutions(const char* name, ortho::Storage storage) {
  return agree(name, run_convolutions<S, C>(storage, 1), run_convolutions<S, C>(storage, 3));
}

}  // namespace

int main() {
  const std::vector<Strided> layouts = {
      {1, 1, 1, 1},      {5, 0, 1, 1},     {0, 5, 5, 1},      {13, 37, 37, 1},  {37, 13, 1, 37},
      {70, 150, 150, 1}, {70, 150, 1, 70}, {20, 90, 3, 2},    {66, 80, 161, 2}, {30, 90, 0, 1},
      {300, 64, 64, 1},  {17, 9, 9, 1},    {64, 600, 600, 1},
  };
  bool good = check<float, float>("float32", layouts, ortho::Storage::float32);
  good &= check<double, double>("float64", layouts, ortho::Storage::float64);
  good &= check<ortho::bfloat16, float>("bfloat16", layouts, ortho::Storage::bfloat16);
  good &= check<ortho::float16, float>("float16", layouts, ortho::Storage::float16);
  // Large enough that the depth is cut into parts, and that all threads share the passes of power iteration.
  good &= check<float, float>("shared", {{16, 262'200, 262'200, 1}}, ortho::Storage::float32, few);
  good &= check_convolutions<float, float>("float32 convolutions", ortho::Storage::float32);
  good &= check_convolutions<double, double>("float64 convolutions", ortho::Storage::float64);
  good &= check_convolutions<ortho::bfloat16, float>("bfloat16 convolutions", ortho::Storage::bfloat16);
  good &= check_convolutions<ortho::float16, float>("float16 convolutions", ortho::Storage::float16);
  return good ? 0 : 1;
}
