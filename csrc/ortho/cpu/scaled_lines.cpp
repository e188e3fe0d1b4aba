#include "scaled_lines.h"

#include <algorithm>
#include <type_traits>

#include "../offsets.h"
#include "dispatch.h"

namespace ortho {
namespace {

// Some lines of one matrix: few enough that they and their derivatives stay in a cache, and enough for a
// tile.
std::vector<DepthRange> plan_lines(const std::vector<Matrix>& matrices, const std::vector<bool>& wanted) {
  constexpr std::int64_t entries = 32'768, fewest = 256;
  std::vector<DepthRange> ranges;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    const auto [order, depth] = matrices[m].shape;
    if (!wanted[m] || order == 0) continue;
    const std::int64_t length = std::max(fewest, entries / order);
    for (std::int64_t begin = 0; begin < depth; begin += length)
      ranges.push_back({static_cast<std::int32_t>(m), begin, std::min(depth, begin + length)});
  }
  return ranges;
}

template <class C>
Matrix contiguous_lines(const C* lines, const Shape& shape) {
  constexpr Storage storage = std::is_same_v<C, double> ? Storage::float64 : Storage::float32;
  return {lines, storage, shape, 1, shape.order};
}

}  // namespace

template <class C>
std::vector<double> inverse_line_lengths(const std::vector<Matrix>& matrices, const std::vector<bool>& wanted,
                                         Workers& workers) {
  const std::vector<DepthRange> ranges = plan_lines(matrices, wanted);
  std::vector<std::int64_t> offsets;
  std::int64_t total = 0;
  double work = 0;
  for (std::size_t m = 0; m < matrices.size(); ++m) {
    offsets.push_back(total);
    if (!wanted[m]) continue;
    total += matrices[m].shape.depth;
    work += static_cast<double>(matrices[m].shape.depth) * matrices[m].shape.order / 4;
  }
  std::vector<double> inverse(total);
  for_each_item(workers, static_cast<std::int64_t>(ranges.size()), work, 0, [&](std::int64_t item, void*) {
    const auto [m, begin, end] = ranges[item];
    cpu_kernels_of<C>().invert_lengths(
        {matrices[m], begin, end, &inverse[offsets[m] + begin], {}, nullptr, nullptr});
  });
  return inverse;
}

template <class C>
void scaled_lines_backward(const C* factors, const std::vector<Matrix>& matrices, const C* residuals,
                           const std::vector<Gradient>& gradients, Workers& workers) {
  std::vector<bool> wanted;
  for (const Gradient& gradient : gradients) wanted.push_back(gradient.data != nullptr);
  const std::vector<DepthRange> ranges = plan_lines(matrices, wanted);
  if (ranges.empty()) return;
  const std::vector<std::int64_t> offsets = triangle_offsets(matrices);
  const Kernels<C>& kernels = cpu_kernels_of<C>();
  const std::int64_t tile = Capacity{}.tile;
  std::int64_t entries = 0, longest = 0, product = 0;
  double work = 0;
  for (const DepthRange& range : ranges) {
    const std::int64_t order = matrices[range.matrix].shape.order, length = range.end - range.begin;
    entries = std::max(entries, order * length);
    longest = std::max(longest, length);
    product = std::max(product, kernels.tile_memory(std::min(order, tile), length, false));
    work += static_cast<double>(order) * order * length / 16;
  }
  const std::int64_t bytes = longest * sizeof(double) + (2 * entries + product) * sizeof(C);
  for_each_item(
      workers, static_cast<std::int64_t>(ranges.size()), work, bytes, [&](std::int64_t item, void* memory) {
        const auto [m, begin, end] = ranges[item];
        const std::int64_t order = matrices[m].shape.order, length = end - begin;
        C* own = static_cast<C*>(memory);  // first what is aligned to vectors
        C* lines = own + product;
        C* derivatives = lines + entries;
        auto* inverse_lengths = reinterpret_cast<double*>(derivatives + entries);
        const LinesJob job{matrices[m], begin, end, inverse_lengths, gradients[m], lines, derivatives};
        kernels.invert_lengths(job);
        kernels.unit_lines(job);
        const Matrix scaled = contiguous_lines(lines, {order, length});
        for (std::int64_t row = 0; row < order; row += tile) {
          kernels.gradient_tile({scaled,
                                 {0, row, std::min(tile, order - row), 0, length},
                                 {residuals + offsets[m]},
                                 {derivatives, 1, order},
                                 4.0 * static_cast<double>(factors[m]),
                                 false},
                                own);
        }
        kernels.project_lines(job);
      });
}

template std::vector<double> inverse_line_lengths<float>(const std::vector<Matrix>&, const std::vector<bool>&,
                                                         Workers&);
template std::vector<double> inverse_line_lengths<double>(const std::vector<Matrix>&,
                                                          const std::vector<bool>&, Workers&);
template void scaled_lines_backward(const float*, const std::vector<Matrix>&, const float*,
                                    const std::vector<Gradient>&, Workers&);
template void scaled_lines_backward(const double*, const std::vector<Matrix>&, const double*,
                                    const std::vector<Gradient>&, Workers&);

}  // namespace ortho
