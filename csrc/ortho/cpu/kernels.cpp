// Compiled once for each instruction level, with -DORTHO_LEVEL=<level> and the flags of that level.
#include "kernels.h"

#include "cross_gram_tile.h"
#include "gram_residual.h"
#include "power_iteration.h"
#include "residual_product.h"
#include "shifted_gram.h"
#include "shifted_product.h"
#include "triangle_norm.h"
#include "unit_lines.h"

namespace ortho {
namespace ORTHO_LEVEL {
namespace {

template <class T>
constexpr Kernels<T> kernels() {
  return {tile_memory<T>,
          blocks_memory<T>,
          residual_tile<T>,
          residual_part<T>,
          residual_from_parts<T>,
          cross_gram_memory<T>,
          cross_gram_tile<T>,
          cross_gram_part<T>,
          cross_gram_from_parts<T>,
          gradient_tile<PlainPanels<T>>,
          measure_rows<T>,
          largest_entry<T>,
          differentiate_rows<T>,
          invert_lengths<T>,
          unit_lines<T>,
          project_lines<T>,
          pass_memory<T>,
          gram_times_vector<T>,
          rank_update<T>,
          packed<T>,
          pack_filters<T>,
          shift_tile<T>,
          pack_channels<T>,
          convolution_gradient_memory<T>,
          convolution_gradient_tile<T>};
}

}  // namespace
}  // namespace ORTHO_LEVEL

#define ORTHO_JOIN_(a, b) a##b
#define ORTHO_JOIN(a, b) ORTHO_JOIN_(a, b)
extern const CpuKernels ORTHO_JOIN(ORTHO_LEVEL, _kernels) = {ORTHO_LEVEL::kernels<float>(),
                                                             ORTHO_LEVEL::kernels<double>()};

}  // namespace ortho
