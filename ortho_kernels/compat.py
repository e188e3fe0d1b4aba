"""The names that existing training scripts carry, with their exact semantics: swap the import, keep the results.

from ortho_kernels.compat import l2_reg_ortho, l2_reg_ortho_imagenet  # Bansal, Chen and Wang, NeurIPS 2018
from ortho_kernels.compat import orth_dist, deconv_orth_dist           # OCNN: Wang, Chen, Chakraborty and Yu, CVPR 2020
from ortho_kernels.compat import compute_orth_regu                     # AdaLoRA: Zhang et al., ICLR 2023
from ortho_kernels.compat import svdo, svmo, of_penalty                # ABD-Net: Chen et al., ICCV 2019

docs/recipes.md has every formula beside its released source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import convolutions, functional
from .backends.registry import serving
from .convolutions import as_spatial
from .options import OCNN, ExtremeEigenvalues
from .shifts import output_size
from .weight_checks import check_weights
from .weight_views import view_weight, weight_views

_STARTS = ("uniform", "normal")


def l2_reg_ortho(model: nn.Module, *, side: str = "small", start: str = "uniform") -> Tensor | None:
    """The loop with `if rows > cols` and `torch.rand`; one with `eye(cols, cols)` alone is `l2_reg_ortho_imagenet`.

    The SRIP term of Bansal, Chen and Wang, "Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?":
    the sum over every parameter with 2 or more dimensions, embeddings and the classifier included, of sigma^2 with
    sigma = |R R v| / |R v|. Two variants circulate; the defaults are the first:

    - `side="small"`, `start="uniform"`: the smaller Gram, v uniform in [0, 1) (the released code for wide ResNets);
    - `side="cols"`, `start="normal"`: always W^T W, v Gaussian (the released code for ImageNet and SVHN). For a wide W this
      Gram has a null space, so sigma >= 1 however orthogonal the rows are, and the gradient may push the wrong way.

    Source: VITA-Group/Orthogonality-in-CNNs at 99897ee, Wide-Resnet/train_n.py:64-95.

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


def l2_reg_ortho_imagenet(model: nn.Module) -> Tensor | None:
    """The loop with `eye(cols, cols)` alone and `normal_(0, 1)`; one with `if rows > cols` is `l2_reg_ortho`.

    It is `l2_reg_ortho(model, side="cols", start="normal")`, which says what the larger Gram of a wide weight does. Three
    of the four released files in PyTorch have this one, and so have most copies in the wild.

    Source: VITA-Group/Orthogonality-in-CNNs at 99897ee, Imagenet/resnet/train_n.py:83-108, Imagenet/preresnet/train_n.py
    and SVHN/train.py likewise.
    """
    return l2_reg_ortho(model, side="cols", start="normal")


def orth_dist(mat: Tensor, stride: int | None = None) -> Tensor:
    """||M^T M - I||_F of OCNN, M the taller of `mat` (flattened to 2-D) and its transpose: the smaller Gram.

    It differs from SO in arXiv 2411.00392 in that the norm is not squared: the gradient has unit scale however close to
    orthogonal `mat` is, and is 0 where it is orthogonal. `stride` is accepted and ignored, as there. One call a layer is how
    that code is written; `soft_orthogonality(weights, squared=False)` gives the sum over all layers in one call.

    Source: samaonline/Orthogonal-Convolutional-Neural-Networks at aa7f569, imagenet/utils.py:42-46.
    """
    weights = functional.as_list([mat])
    check_weights(weights, [1], ["mat"])
    return functional.soft_orthogonality(weights, squared=False)


def deconv_orth_dist(kernel: Tensor, stride: int | tuple[int, int] = 2, padding: int | tuple[int, int] = 1) -> Tensor:
    """||Conv(K, K) - I||_F of OCNN as released, which holds the middle of the output against the identity.

    `kernel` is `(out, in, k, k)`. The output has floor(2 padding / stride) + 1 places a side; its middle is the place
    (ct, ct) with ct = floor(its width / 2). Two quirks are kept:

    - At stride 1, padding 1 it checks 9 of the 25 shifts of a 3 x 3 kernel.
    - At its defaults the shifts are (+-1, +-1): the zero shift is never met, and the identity is held against (1, 1).

    `ortho_kernels.convolution_orthogonality` checks all shifts, the zero shift against the identity. The gradient is 0
    where the value is 0, as there.

    Source: samaonline/Orthogonal-Convolutional-Neural-Networks at aa7f569, imagenet/utils.py.

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


def compute_orth_regu(model: nn.Module, regu_weight: float = 0.1, *, adapter: str = "") -> Tensor:
    """The orthogonality term of AdaLoRA: `regu_weight` times the mean over its factors of ||G - I||_F, G the factor's Gram.

    The factors are the parameters P with "lora_A" in their names, where G = P P^T, and with "lora_B", where G = P^T P. This
    is `compute_orth_regu` of Zhang et al. (ICLR 2023; `loralib/loralib/adalora.py` of github.com/QingruZhang/AdaLoRA, commit
    19e47de). PEFT has the same formula in `AdaLoraModel.forward` (`src/peft/tuners/adalora/model.py` of
    github.com/huggingface/peft, commit 5d602fd). There the weight is `orth_reg_weight`, and only parameters count whose
    names contain the trained adapter's: `adapter="default"` unless another name was chosen. PEFT adds the term by itself
    where the model's output has a `loss` and its configuration a `task_type`, and only there (0.21).

    In terms of this package it is `regu_weight * soft_orthogonality(factors, squared=False, reduction="mean")`, with
    `side="rows"` for lora_A and `side="cols"` for lora_B, the small sides, r x r. It differs from the released codes in
    one way: it keeps float32's digits for 16-bit factors.

    Raises:
        ValueError: for a model without such a parameter, of which the released code makes a division by zero, and PEFT 0.
    """
    factors: dict[str, list[Tensor]] = {"lora_A": [], "lora_B": []}
    for name, parameter in model.named_parameters():
        letter = next((letter for letter in factors if letter in name), None)
        if letter is not None and adapter in name:
            factors[letter].append(parameter)
    if not any(factors.values()):
        named = f", and with {adapter!r}," if adapter else ""
        raise ValueError(f"the model has no parameter with lora_A or lora_B{named} in its name")
    norms = [
        functional.soft_orthogonality(factors[letter], side=side, squared=False, reduction="none")
        for letter, side in (("lora_A", "rows"), ("lora_B", "cols"))
        if factors[letter]
    ]
    return regu_weight * torch.cat(norms).mean()


def svmo(kernel: Tensor | Sequence[Tensor], *, start: Tensor | Sequence[Tensor] | None = None) -> Tensor:
    """10 (l_max - l_min)^2 of W W^T, `kernel` flattened to W: the penalty on weights (OW) that ABD-Net trains with.

    The eigenvalues are estimates of one power iteration each. A zero or an orthogonal kernel has value 0 and gradient 0.

    Args:
        kernel: a floating-point tensor `(n, ...)` with 2 dimensions or more. Or a list of them, all served together, whose
            values are added.
        start: `(n, 2)`, the vectors of l_max and l_min; uniform in [0, 1) by default, as there. Of a list, a list.

    Returns:
        A float32 tensor (float64 where a kernel is float64), without the strength beta; differentiable once.

    Raises:
        TypeError, ValueError: for a kernel that is no weight, a start of another shape.

    Source: TAMU-VITA/ABD-Net at 502305e, torchreid/regularizers/SVMO.py:20-73. There a kernel of one filter is 0 by a case
    of its own; here it is so by the formula. A zero kernel gives NaN there.
    """
    largest, smallest, dtype = _extremes(kernel, start)
    return (10 * (largest - smallest).square()).sum().to(dtype)


def svdo(kernel: Tensor | Sequence[Tensor], *, start: Tensor | Sequence[Tensor] | None = None) -> Tensor:
    """(l_max / l_min - 1)^2 of W W^T, `kernel` flattened to W: the ratio is that of the squared singular values.

    Arguments, result and errors are those of `svmo`. A kernel with more rows than columns has a singular Gram and a huge
    value, as there; l_min = 0 gives infinity, but a zero kernel 0.

    Source: TAMU-VITA/ABD-Net at 502305e, torchreid/regularizers/SVDO.py:27-75, which no option of that code selects.
    """
    largest, smallest, dtype = _extremes(kernel, start)
    equal = largest == smallest
    ratio = torch.where(equal, 1, largest / torch.where(equal, 1, smallest))
    return (ratio - 1).square().sum().to(dtype)


def of_penalty(features: Tensor, *, start: Tensor | None = None) -> Tensor:
    """The sum over a batch of l_max - l_min of F F^T, times 32 / batch: ABD-Net's penalty on features (OF).

    Args:
        features: floating-point feature maps `(batch, channels, ...)`; F is one sample's, flattened to 2-D.
        start: `(batch, channels, 2)`, the vectors of l_max and l_min; Gaussian by default, as there.

    Returns:
        A float32 tensor (float64 for float64), without the strength beta; differentiable once.

    Raises:
        TypeError, ValueError: for features that are none, a start of another shape.

    Source: TAMU-VITA/ABD-Net at 502305e, torchreid/losses/of_penalty.py:26-67. There the features of its
    position "intermediate" count 0.01.
    """
    check_weights([features], [1], ["features"])
    if features.dim() < 3 or not len(features):
        raise ValueError(f"features must be (batch, channels, ...) with a sample or more; got {tuple(features.shape)}")
    F, batch = features.flatten(2).flatten(0, 1), len(features)
    views = weight_views([F], [batch], ["features"])
    start = _start_vectors(start, (batch, features.shape[1], 2), features.device, torch.randn)
    largest, smallest = serving(views, ExtremeEigenvalues()).extreme_eigenvalues([F], views, [start])
    return ((largest - smallest).sum() * (32 / batch)).to(views.dtype)


def _extremes(
    kernel: Tensor | Sequence[Tensor], start: Tensor | Sequence[Tensor] | None
) -> tuple[Tensor, Tensor, torch.dtype]:
    """Of every kernel, and the dtype of the value."""
    starts: list[Any]
    if isinstance(kernel, Tensor):
        kernels, names, starts = [kernel], ["kernel"], [start]
    else:
        kernels = list(kernel)
        names = [f"kernel[{index}]" for index in range(len(kernels))]
        starts = [None] * len(kernels) if start is None else list(start)
        if len(starts) != len(kernels):
            raise ValueError(
                f"start must have one tensor for each kernel: got {len(starts)} for {len(kernels)} kernels"
            )
    views = weight_views(kernels, [1] * len(kernels), names)
    vectors = [
        _start_vectors(given, (len(W), 2), W.device, torch.rand) for given, W in zip(starts, kernels, strict=True)
    ]
    if not kernels:
        return torch.zeros(0), torch.zeros(0), views.dtype
    largest, smallest = serving(views, ExtremeEigenvalues()).extreme_eigenvalues(kernels, views, vectors)
    return largest, smallest, views.dtype


def _start_vectors(
    start: Tensor | None, shape: tuple[int, ...], device: torch.device, draw: Callable[..., Tensor]
) -> Tensor:
    if start is None:
        return draw(shape, device=device)
    if not isinstance(start, Tensor):
        raise TypeError(f"start must be a tensor of shape {shape}; got a {type(start).__name__}")
    if tuple(start.shape) != shape:
        raise ValueError(f"start must have shape {shape}, two vectors a matrix; got {tuple(start.shape)}")
    return start
