// The backward product of float32 matrices in bfloat16, for CPUs that have dot products of it.
#include "kernels.h"
#include "residual_product.h"

namespace ortho {

extern const RoundedGradientTile bfloat_gradient_tile = ORTHO_LEVEL::gradient_tile<ORTHO_LEVEL::BfloatPanels>;

}  // namespace ortho
