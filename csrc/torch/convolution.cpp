// The operators of convolutions on CPU tensors.
#include "../ortho/cpu/convolution.h"

#include <string>
#include <tuple>
#include <vector>

#include "tensor_args.h"
#include "workers.h"

namespace {

using ortho::Convolution;
using ortho::ConvolutionGradient;
using ortho::Integers;
using ortho::numbers;
using ortho::Shift;
using ortho::Tensor;
using ortho::Tensors;

// (out, in), (out, in, width) or (out, in, height, width); `Strided` has the strides.
template <class Strided>
void set_strides(Strided& strided, const Tensor& tensor) {
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  const std::size_t ndim = sizes.size();
  const std::int64_t width = ndim > 2 ? sizes[ndim - 1] : 1, height = ndim > 3 ? sizes[2] : 1;
  // Dimensions of one have any strides: they get those of the default memory format.
  strided.x_stride = width == 1 ? 1 : strides[ndim - 1];
  strided.y_stride = height == 1 ? width : strides[2];
  const bool interleaved = strided.x_stride == 1 && strided.y_stride == width;
  strided.channel_stride = sizes[1] > 1 ? strides[1] : interleaved ? height * width : 1;
  strided.filter_stride = strides[0];
}

// The convolutions of all groups of all weights, and their shifts.
struct Convolutions {
  Convolutions(const Tensors& weights, const Integers& groups, const Integers& strides,
               const Integers& paddings, const Integers& identities) {
    const std::size_t count = weights.size();
    if (groups.size() != count || strides.size() != 2 * count || paddings.size() != 2 * count ||
        identities.size() != 2 * count) {
      throw std::runtime_error(
          "expected one number of groups and two strides, paddings and places of the identity for each of " +
          std::to_string(count) + " weights");
    }
    for (std::size_t w = 0; w < count; ++w) {
      const Tensor& weight = weights[w];
      const auto sizes = weight.sizes();
      const auto check = [w](bool right, const char* problem) {
        if (!right) throw std::runtime_error(ortho::weight_name({w}) + ": " + problem);
      };
      check(sizes.size() >= 2 && sizes.size() <= 4, "expected 2 to 4 dimensions");
      check(groups[w] > 0 && sizes[0] % groups[w] == 0, "its rows can't be divided into groups");
      ortho::ConvolutionOptions options{};
      for (int i = 0; i < 2; ++i) {
        constexpr std::int64_t most = std::int64_t{1} << 31;
        options.stride[i] = strides[2 * w + i];
        options.padding[i] = paddings[2 * w + i];
        options.identity[i] = identities[2 * w + i];
        check(options.stride[i] > 0 && options.stride[i] < most, "expected positive strides");
        check(options.padding[i] >= 0 && options.padding[i] < most, "expected no negative padding");
        check(options.identity[i] >= 0 && options.identity[i] <= 2 * options.padding[i] / options.stride[i],
              "expected the identity's place within the output");
      }
      Convolution kernel;
      kernel.storage = ortho::storage_of(weight, {w});
      kernel.filters = sizes[0] / groups[w];
      kernel.channels = sizes[1];
      kernel.width = sizes.size() > 2 ? sizes[sizes.size() - 1] : 1;
      kernel.height = sizes.size() > 3 ? sizes[2] : 1;
      set_strides(kernel, weight);
      const std::vector<Shift> own = ortho::shifts_of(kernel, options);
      const auto* data =
          static_cast<const char*>(ortho::address(weight, [w] { return ortho::weight_name({w}); }));
      const std::int64_t group_bytes =
          kernel.filters * kernel.filter_stride * static_cast<std::int64_t>(weight.element_size());
      for (std::int64_t g = 0; g < groups[w]; ++g) {
        kernel.data = data ? data + g * group_bytes : nullptr;
        kernels.push_back(kernel);
        shifts.push_back(own);
        residual_size += ortho::residual_size(kernel, own);
      }
      has_float64 |= kernel.storage == ortho::Storage::float64;
    }
  }

  std::int64_t count() const { return static_cast<std::int64_t>(kernels.size()); }

  std::vector<Convolution> kernels;
  std::vector<std::vector<Shift>> shifts;
  std::int64_t residual_size = 0;
  bool has_float64 = false;
};

template <class Body>
auto in_compute_type(const Convolutions& convolutions, const Body& body) {
  return convolutions.has_float64 ? body(double{}) : body(float{});
}

std::vector<ConvolutionGradient> view_gradients(const Tensors& weights, const Integers& groups,
                                                const Tensors& gradients, const Integers& wanted,
                                                bool accumulate) {
  std::vector<ConvolutionGradient> result;
  ortho::for_gradients(weights, gradients, wanted, "weights", [&](std::size_t w, const Tensor* gradient) {
    ConvolutionGradient own;
    if (!gradient) {
      result.insert(result.end(), groups[w], own);
      return;
    }
    own.accumulate = accumulate;
    set_strides(own, *gradient);
    auto* data =
        static_cast<char*>(ortho::mutable_address(*gradient, [w] { return ortho::gradient_name({w}); }));
    const std::int64_t group_bytes = gradient->sizes()[0] / groups[w] * own.filter_stride *
                                     static_cast<std::int64_t>(gradient->element_size());
    for (std::int64_t g = 0; g < groups[w]; ++g) {
      own.data = data ? data + g * group_bytes : nullptr;
      result.push_back(own);
    }
  });
  return result;
}

std::tuple<Tensor, Tensor> convolution_orthogonality(const Tensors& weights, const Integers& groups,
                                                     const Integers& strides, const Integers& paddings,
                                                     const Integers& identities, bool keep) {
  const Convolutions convolutions(weights, groups, strides, paddings, identities);
  ortho::TorchWorkers workers;
  return in_compute_type(convolutions, [&](auto number) {
    using C = decltype(number);
    Tensor values = ortho::new_cpu_numbers<C>(convolutions.count());
    Tensor residuals = ortho::new_cpu_numbers<C>(keep ? convolutions.residual_size : 0);
    ortho::convolution_orthogonality<C>(
        convolutions.kernels, convolutions.shifts, static_cast<C*>(values.mutable_data_ptr()),
        keep ? static_cast<C*>(residuals.mutable_data_ptr()) : nullptr, workers);
    return std::make_tuple(values, residuals);
  });
}

void convolution_orthogonality_backward(const Tensor& factors, const Tensors& weights, const Integers& groups,
                                        const Integers& strides, const Integers& paddings,
                                        const Integers& identities, const Tensor& residuals,
                                        const Tensors& gradients, const Integers& wanted, bool accumulate) {
  const Convolutions convolutions(weights, groups, strides, paddings, identities);
  const auto targets = view_gradients(weights, groups, gradients, wanted, accumulate);
  ortho::TorchWorkers workers;
  in_compute_type(convolutions, [&](auto number) {
    using C = decltype(number);
    ortho::convolution_orthogonality_backward<C>(
        numbers<C>(factors, convolutions.count(), "factors"), convolutions.kernels, convolutions.shifts,
        numbers<C>(residuals, convolutions.residual_size, "residuals"), targets, workers);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ortho_kernels, CPU, m) {
  m.impl("convolution_orthogonality", TORCH_BOX(&convolution_orthogonality));
  m.impl("convolution_orthogonality_backward", TORCH_BOX(&convolution_orthogonality_backward));
}
