#include "convolution.h"

#include <algorithm>
#include <memory>

#include "../options.h"
#include "dispatch.h"
#include "tile_plan.h"

namespace ortho {
namespace {

constexpr std::int64_t shift_side = 256;    // the longest side of a tile of a residual
constexpr std::int64_t gradient_rows = 32;  // of a tile of a gradient,
constexpr std::int64_t gradient_channels = 256;
constexpr std::int64_t packed_at_once = 64;  // vectors

// Calls visit(begin, length) for pieces of nearly the same size, none longer than `longest`.
template <class Visit>
void for_pieces(std::int64_t whole, std::int64_t longest, const Visit& visit) {
  const std::int64_t piece = even_length(whole, longest);
  for (std::int64_t begin = 0; begin < whole; begin += piece) visit(begin, std::min(piece, whole - begin));
}

// Copies of kernels, packed: one after the other in memory that nothing clears.
template <class T>
class PackedKernels {
 public:
  // vectors_of(kernel): how many vectors are packed, and of how many numbers each; zero for none.
  template <class VectorsOf, class Pack>
  PackedKernels(const std::vector<Convolution>& kernels, Workers& workers, const VectorsOf& vectors_of,
                const Pack& pack) {
    struct Piece {
      std::size_t kernel;
      std::int64_t first, vectors;
    };
    std::vector<Piece> pieces;
    std::int64_t total = 0;
    for (std::size_t k = 0; k < kernels.size(); ++k) {
      const Shape shape = vectors_of(k);
      offsets_.push_back(total);
      total += cpu_kernels_of<T>().packed(shape.order) * shape.depth;
      for_pieces(shape.order, packed_at_once,
                 [&](std::int64_t first, std::int64_t vectors) { pieces.push_back({k, first, vectors}); });
    }
    numbers_.reset(total ? new T[total] : nullptr);
    for_each_item(workers, static_cast<std::int64_t>(pieces.size()), static_cast<double>(total), 0,
                  [&](std::int64_t item, void*) {
                    const Piece& piece = pieces[item];
                    pack(kernels[piece.kernel], piece.first, piece.vectors, of(piece.kernel));
                  });
  }

  T* of(std::size_t kernel) const { return numbers_.get() + offsets_[kernel]; }

 private:
  std::vector<std::int64_t> offsets_;
  std::unique_ptr<T[]> numbers_;
};

std::int64_t numbers_of(const Shift& shift, std::int64_t filters) {
  return is_zero(shift) ? triangle(filters) : filters * filters;
}

std::vector<std::int64_t> residual_offsets(const std::vector<Convolution>& kernels,
                                           const std::vector<std::vector<Shift>>& shifts) {
  std::vector<std::int64_t> offsets;
  std::int64_t offset = 0;
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    offsets.push_back(offset);
    offset += residual_size(kernels[k], shifts[k]);
  }
  return offsets;
}

struct ShiftItem {
  std::size_t kernel, shift;
  ShiftTile tile;
  std::int64_t work;
};

std::int64_t overlap(std::int64_t size, std::int64_t shift) {
  return std::max<std::int64_t>(0, size - std::abs(shift));
}

// The tiles of those kernels that are taken, largest first.
template <class Taken>
std::vector<ShiftItem> plan_shifts(const std::vector<Convolution>& kernels,
                                   const std::vector<std::vector<Shift>>& shifts, const Taken& taken) {
  std::vector<ShiftItem> items;
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    if (!taken(k)) continue;
    const Convolution& kernel = kernels[k];
    for (std::size_t s = 0; s < shifts[k].size(); ++s) {
      const Shift& shift = shifts[k][s];
      const std::int64_t depth =
          kernel.channels * overlap(kernel.height, shift.dy) * overlap(kernel.width, shift.dx);
      for_pieces(kernel.filters, shift_side, [&](std::int64_t row, std::int64_t rows) {
        for_pieces(kernel.filters, shift_side, [&](std::int64_t column, std::int64_t columns) {
          if (is_zero(shift) && column > row) return;  // symmetric
          const std::int64_t products = rows * columns * depth;
          const bool half = is_zero(shift) && column == row;
          items.push_back({k, s, {row, rows, column, columns}, half ? products / 2 : products});
        });
      });
    }
  }
  std::stable_sort(items.begin(), items.end(),
                   [](const ShiftItem& a, const ShiftItem& b) { return a.work > b.work; });
  return items;
}

// All convolutions that are taken, with T as the type of the arithmetic.
template <class T, class C, class Taken>
void shifts_in(const std::vector<Convolution>& kernels, const std::vector<std::vector<Shift>>& shifts,
               const Taken& taken, std::vector<double>& totals, C* residuals, Workers& workers) {
  const std::vector<ShiftItem> items = plan_shifts(kernels, shifts, taken);
  if (items.empty()) return;
  const Kernels<T>& level = cpu_kernels_of<T>();
  const PackedKernels<T> filters(
      kernels, workers,
      [&](std::size_t k) {
        return taken(k) ? Shape{kernels[k].filters, kernels[k].channels * taps_of(kernels[k])} : Shape{};
      },
      level.pack_filters);
  const std::vector<std::int64_t> offsets = residual_offsets(kernels, shifts);
  std::vector<double> values(items.size());
  std::int64_t memory = 0;
  double work = 0;
  for (const ShiftItem& item : items) {
    memory = std::max(memory, level.blocks_memory(item.tile.rows, item.tile.columns, false));
    work += static_cast<double>(item.work) / 16;
  }
  for_each_item(workers, static_cast<std::int64_t>(items.size()), work, memory * sizeof(T),
                [&](std::int64_t i, void* scratch) {
                  const ShiftItem& item = items[i];
                  const Shift& shift = shifts[item.kernel][item.shift];
                  C* residual = residuals ? residuals + offsets[item.kernel] + shift.residual : nullptr;
                  const ShiftJob job{kernels[item.kernel],    shift,    item.tile,
                                     filters.of(item.kernel), residual, std::is_same_v<C, float>};
                  values[i] = level.shift_tile(job, static_cast<T*>(scratch));
                });
  for (std::size_t i = 0; i < items.size(); ++i) totals[items[i].kernel] += values[i];
}

}  // namespace

std::vector<Shift> shifts_of(const Convolution& kernel, const ConvolutionOptions& options) {
  const std::int64_t size[2] = {kernel.height, kernel.width};
  std::int64_t first[2], last[2];  // of the places of the output at which filters overlap
  for (int i = 0; i < 2; ++i) {
    const std::int64_t stride = options.stride[i], padding = options.padding[i];
    first[i] = std::max<std::int64_t>(0, (padding - size[i] + stride) / stride);
    last[i] = std::min(2 * padding / stride, (padding + size[i] - 1) / stride);
  }
  std::vector<Shift> shifts;
  const auto add = [&](std::int64_t y, std::int64_t x) {
    Shift shift{y * options.stride[0] - options.padding[0], x * options.stride[1] - options.padding[1]};
    if (shift.dy < 0 || (shift.dy == 0 && shift.dx < 0)) shift = {-shift.dy, -shift.dx};
    auto found = std::find_if(shifts.begin(), shifts.end(),
                              [&](const Shift& s) { return s.dy == shift.dy && s.dx == shift.dx; });
    if (found == shifts.end()) found = shifts.insert(found, shift);
    (y == options.identity[0] && x == options.identity[1] ? found->identity : found->zero) += 1;
  };
  const auto inside = [&](int i) {
    return options.identity[i] >= first[i] && options.identity[i] <= last[i];
  };
  if (!inside(0) || !inside(1)) add(options.identity[0], options.identity[1]);
  for (std::int64_t y = first[0]; y <= last[0]; ++y) {
    for (std::int64_t x = first[1]; x <= last[1]; ++x) add(y, x);
  }
  std::sort(shifts.begin(), shifts.end(),
            [](const Shift& a, const Shift& b) { return a.dy != b.dy ? a.dy < b.dy : a.dx < b.dx; });
  const auto zero = std::find_if(shifts.begin(), shifts.end(), [](const Shift& s) { return is_zero(s); });
  if (zero != shifts.end()) std::rotate(shifts.begin(), zero, zero + 1);
  std::int64_t offset = 0;
  for (Shift& shift : shifts) {
    shift.residual = offset;
    offset += numbers_of(shift, kernel.filters);
  }
  return shifts;
}

std::int64_t residual_size(const Convolution& kernel, const std::vector<Shift>& shifts) {
  return shifts.empty() ? 0 : shifts.back().residual + numbers_of(shifts.back(), kernel.filters);
}

template <class C>
void convolution_orthogonality(const std::vector<Convolution>& kernels,
                               const std::vector<std::vector<Shift>>& shifts, C* values, C* residuals,
                               Workers& workers) {
  std::vector<double> totals(kernels.size());
  const auto in_double = [&](std::size_t k) {
    return std::is_same_v<C, double> || kernels[k].filters <= small_order;
  };
  shifts_in<double, C>(kernels, shifts, in_double, totals, residuals, workers);
  if constexpr (std::is_same_v<C, float>) {
    shifts_in<float, C>(
        kernels, shifts, [&](std::size_t k) { return !in_double(k); }, totals, residuals, workers);
  }
  for (std::size_t k = 0; k < kernels.size(); ++k) values[k] = static_cast<C>(totals[k]);
}

template <class C>
void convolution_orthogonality_backward(const C* factors, const std::vector<Convolution>& kernels,
                                        const std::vector<std::vector<Shift>>& shifts, const C* residuals,
                                        const std::vector<ConvolutionGradient>& gradients, Workers& workers) {
  const Kernels<C>& level = cpu_kernels_of<C>();
  const PackedKernels<C> channels(
      kernels, workers,
      [&](std::size_t k) {
        return gradients[k].data ? Shape{kernels[k].channels, taps_of(kernels[k]) * kernels[k].filters}
                                 : Shape{};
      },
      level.pack_channels);
  const std::vector<std::int64_t> offsets = residual_offsets(kernels, shifts);
  struct Item {
    ConvolutionGradientJob job;
    std::int64_t work;
  };
  std::vector<Item> items;
  std::int64_t memory = 0;
  double work = 0;
  for (std::size_t k = 0; k < kernels.size(); ++k) {
    if (!gradients[k].data) continue;
    const Convolution& kernel = kernels[k];
    const auto shift_count = static_cast<std::int64_t>(shifts[k].size());
    const double scale = 2.0 * static_cast<double>(factors[k]);
    for_pieces(kernel.filters, gradient_rows, [&](std::int64_t row, std::int64_t rows) {
      for_pieces(kernel.channels, gradient_channels, [&](std::int64_t channel, std::int64_t own) {
        const ConvolutionGradientJob job{
            kernel, gradients[k],   shifts[k].data(),       shift_count, row, rows, channel,
            own,    channels.of(k), residuals + offsets[k], scale};
        items.push_back({job, rows * own * kernel.filters * taps_of(kernel) * shift_count});
        memory = std::max(memory, level.convolution_gradient_memory(job));
        work += static_cast<double>(items.back().work) / 16;
      });
    });
  }
  std::vector<std::size_t> order(items.size());  // largest first
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return items[a].work > items[b].work; });
  for_each_item(workers, static_cast<std::int64_t>(items.size()), work, memory * sizeof(C),
                [&](std::int64_t i, void* scratch) {
                  level.convolution_gradient_tile(items[order[i]].job, static_cast<C*>(scratch));
                });
}

template void convolution_orthogonality(const std::vector<Convolution>&,
                                        const std::vector<std::vector<Shift>>&, float*, float*, Workers&);
template void convolution_orthogonality(const std::vector<Convolution>&,
                                        const std::vector<std::vector<Shift>>&, double*, double*, Workers&);
template void convolution_orthogonality_backward(const float*, const std::vector<Convolution>&,
                                                 const std::vector<std::vector<Shift>>&, const float*,
                                                 const std::vector<ConvolutionGradient>&, Workers&);
template void convolution_orthogonality_backward(const double*, const std::vector<Convolution>&,
                                                 const std::vector<std::vector<Shift>>&, const double*,
                                                 const std::vector<ConvolutionGradient>&, Workers&);

}  // namespace ortho
