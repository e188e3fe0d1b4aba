"""The names that existing training scripts carry, with their exact semantics: swap the import, keep the results.

from ortho_kernels.compat import l2_reg_ortho   # Bansal, Chen and Wang, NeurIPS 2018
from ortho_kernels.compat import orth_dist, deconv_orth_dist   # OCNN: Wang, Chen, Chakraborty and Yu, CVPR 2020
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import convolutions, functional
from .convolutions import as_spatial
from .options import OCNN
from .shifts import output_size
from .weight_checks import check_weights
from .weight_views import view_weight, weight_views

_STARTS = ("uniform", "normal")


def l2_reg_ortho(model: nn.Module, *, side: str = "small", start: str = "uniform") -> Tensor | None:
    """The SRIP term of Bansal, Chen and Wang, "Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?".

    The sum over every parameter with 2 or more dimensions, embeddings and the classifier included, of sigma^2 with
    sigma = |R R v| / |R v|. Two variants circulate; the defaults are the first:

    - `side="small"`, `start="uniform"`: the smaller Gram, v uniform in [0, 1) (the released code for wide ResNets);
    - `side="cols"`, `start="normal"`: always W^T W, v Gaussian (the released code for ImageNet). For a wide W this Gram has
      a null space, so sigma >= 1 however orthogonal the rows are, and the gradient may push the wrong way.

    It differs from the paper behind this package (arXiv 2411.00392; `OrthogonalityPenalty(encoder, "srip")`) in three ways:
    sigma is squared; every matrix-shaped parameter counts, not the encoder's conv and linear weights alone; and v is
    uniform, not Gaussian, by default. It differs from the released code in one: where R v = 0 its value is 0, not NaN.

    Returns:
        The sum, differentiable; `None`, as the released code has it, for a model without such a parameter.

    Raises:
        ValueError: for a sharded parameter (`DTensor`), for which each process would draw another v.
    """
    if start not in _STARTS:
        raise ValueError(f"start must be 'uniform' or 'normal'; got {start!r}")
    named = [(name, weight) for name, weight in model.named_parameters() if weight.dim() >= 2]
    if not named:
        return None
    names, weights = zip(*named, strict=True)
    check_weights(weights, [1] * len(weights), names)
    draw = torch.rand if start == "uniform" else torch.randn
    vectors = [draw(1, view_weight(weight, 1).order(side), device=weight.device) for weight in weights]
    return functional.srip(weights, side=side, start=vectors, squared=True)


def orth_dist(mat: Tensor, stride: int | None = None) -> Tensor:
    """||M^T M - I||_F of OCNN, M the taller of `mat` (flattened to 2-D) and its transpose: the smaller Gram.

    It differs from SO in arXiv 2411.00392 in that the norm is not squared (the gradient has unit scale however close to
    orthogonal `mat` is), and from the released code in that its gradient at an orthogonal `mat` is 0, not NaN. `stride` is
    accepted and ignored, as there. One call a layer is how that code is written;
    `soft_orthogonality(weights, squared=False)` gives the sum over all layers in one call.
    """
    return functional.soft_orthogonality([mat], squared=False)


def deconv_orth_dist(kernel: Tensor, stride: int | tuple[int, int] = 2, padding: int | tuple[int, int] = 1) -> Tensor:
    """||Conv(K, K) - I||_F of OCNN as released, which holds the middle of the output against the identity.

    `kernel` is `(out, in, k, k)`. The output has floor(2 padding / stride) + 1 places a side; its middle is the place
    (ct, ct) with ct = floor(its width / 2). Two quirks are kept:

    - At stride 1, padding 1 it checks 9 of the 25 shifts of a 3 x 3 kernel.
    - At its defaults the shifts are (+-1, +-1): the zero shift is never met, and the identity is held against (1, 1).

    `ortho_kernels.convolution_orthogonality` checks all shifts, the zero shift against the identity. The source is
    `deconv_orth_dist` of github.com/samaonline/Orthogonal-Convolutional-Neural-Networks, imagenet/utils.py at aa7f569. From
    that it differs in one thing: its gradient at 0 is 0, not NaN.

    Raises:
        TypeError, ValueError: for a kernel that is none, and for a stride or padding that conv2d does not take or whose
            output has no place (ct, ct).
    """
    weights = functional.as_list([kernel])
    views = weight_views(weights, 1, ["kernel"])
    strides = as_spatial(stride, flat=False, missing=1, least=1)
    paddings = as_spatial(padding, flat=False, missing=0, least=0)
    if kernel.dim() != 4 or strides is None or paddings is None:
        raise ValueError(
            "kernel must be (out, in, k, k), stride and padding ints or tuples (y, x), of 1 or more and of 0 or more; "
            f"got shape {tuple(kernel.shape)}, stride={stride!r}, padding={padding!r}"
        )
    height, width = output_size(strides, paddings)
    if (ct := width // 2) >= height:
        raise ValueError(
            f"kernel convolved with itself at stride={stride!r}, padding={padding!r} is {height} x {width}: it has no place "
            f"({ct}, {ct}) for the identity; take equal strides and paddings for both dimensions"
        )
    options = OCNN((strides,), (paddings,), ((ct, ct),), squared=False)
    return convolutions.values(weights, views, options).sum()
