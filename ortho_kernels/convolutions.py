"""The penalty of a convolution as the linear map that it is: every shift between two filters counts."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from .backends.registry import serving
from .functional import as_list, reduce
from .options import OCNN, check_reduction
from .shifts import Spatial, full_padding, kernel_size
from .weight_views import WeightViews, weight_views


def convolution_orthogonality(
    weights: Sequence[Tensor],
    *,
    stride: int | Sequence = 1,
    padding: int | Sequence | None = None,
    groups: int | Sequence[int] = 1,
    squared: bool = True,
    reduction: str = "sum",
) -> Tensor:
    """||Conv(K, K) - I||_F^2 of every kernel K: OCNN (Wang, Chen, Chakraborty and Yu, CVPR 2020, arXiv 1911.12207).

    Conv(K, K) holds one out x out matrix for each shift between two filters. That of the zero shift is held against the
    identity, the others against zero. The value is 0 where the rows of the convolution's matrix are orthonormal: one row
    for each filter and place, away from borders. `soft_orthogonality` sees the zero shift alone.

    Args:
        weights: kernels `(out, in / groups, k)` or `(out, in / groups, k, k)`, and linear weights `(out, in)`, which count
            as 1 x 1 kernels; float64, float32, bfloat16 or float16, of any strides, all on one device.
        stride: of the layer: an int, or a tuple `(y, x)`, for all weights; or a list with one of these for each.
        padding: likewise, of Conv(K, K), not of the layer. None, which a list may hold too, is the paper's
            floor((k - 1) / stride) * stride: all shifts that a convolution of this stride has. Less leaves out the largest.
        groups: the number of groups of each weight, or one number for all. Filters of two groups don't meet.
        squared: the norm ||Conv(K, K) - I||_F of each value instead, if False (its gradient at 0 is 0).
        reduction: `"sum"`, `"mean"` over kernels, or `"none"`: one value a kernel, groups of a weight side by side.

    Returns:
        A float32 tensor (float64 where any weight is float64), differentiable once; NaN and Inf propagate.

    Raises:
        TypeError, ValueError: naming the weight and what was expected. A padding at which the zero shift is never met is
            one; the released code's form, which has that, is `ortho_kernels.compat.deconv_orth_dist`.
        RuntimeError: for a weight whose storage was freed; under `torch.func.vmap`, unless the torch backend serves.
    """
    weights = as_list(weights)
    views = weight_views(weights, groups)
    strides, paddings = _one_each("stride", stride, len(weights)), _one_each("padding", padding, len(weights))
    resolved = [
        _stride_and_padding(*each) for each in zip(range(len(weights)), weights, strides, paddings, strict=True)
    ]
    centers = [(padding[0] // stride[0], padding[1] // stride[1]) for stride, padding in resolved]
    options = OCNN(
        tuple(stride for stride, _ in resolved), tuple(padding for _, padding in resolved), tuple(centers), squared
    )
    check_reduction(reduction, options)
    return reduce(values(weights, views, options), reduction, views, "rows")


def values(weights: list[Tensor], views: WeightViews, options: OCNN) -> Tensor:
    """The same for weights and options that are checked: one value a kernel."""
    if not weights:
        return torch.zeros(0)
    return serving(views, options).convolution_orthogonality(weights, views, options)


def as_spatial(given: object, *, flat: bool, missing: int, least: int) -> Spatial | None:
    """`(y, x)` of an int or a tuple; None where it is neither, or less than `least`.

    A `flat` kernel has no y, and takes a tuple of one.
    """
    dimensions = 1 if flat else 2
    numbers = (given,) * dimensions if isinstance(given, Integral) else given
    if not isinstance(numbers, tuple) or len(numbers) != dimensions:
        return None
    if not all(isinstance(n, Integral) and not isinstance(n, bool) and int(n) >= least for n in numbers):
        return None
    y, x = (missing, *numbers) if flat else numbers
    return int(y), int(x)


def _one_each(name: str, given: object, weights: int) -> list:
    if not isinstance(given, list):
        return [given] * weights
    if len(given) != weights:
        raise ValueError(
            f"{name} must be an int or a tuple for all weights, or a list with one for each: got {len(given)} for {weights} "
            "weights"
        )
    return given


def _stride_and_padding(index: int, weight: Tensor, stride: object, padding: object) -> tuple[Spatial, Spatial]:
    """Stride and padding of this weight, checked."""
    if weight.dim() > 4:
        raise ValueError(
            f"weights[{index}] has shape {tuple(weight.shape)}; expected a kernel of one or two dimensions, (out, in, k) or "
            "(out, in, k, k), or a linear weight (out, in)"
        )
    flat, size = weight.dim() == 3, kernel_size(weight.shape)
    form = "an int or a tuple of one" if flat else "an int or a tuple (y, x)"
    own_stride = as_spatial(stride, flat=flat, missing=1, least=1)
    if own_stride is None:
        raise ValueError(f"weights[{index}] was given stride={stride!r}; expected {form}, 1 or more")
    full = full_padding(size, own_stride)
    if padding is None:
        return own_stride, full
    own = as_spatial(padding, flat=flat, missing=0, least=0)
    if own is None:
        raise ValueError(f"weights[{index}] was given padding={padding!r}; expected None or {form}, 0 or more")
    if any(p > most or p % s for p, most, s in zip(own, full, own_stride, strict=True)):
        raise ValueError(
            f"weights[{index}], a {size[0]} x {size[1]} kernel, was given padding={padding!r} at stride={stride!r}; "
            f"expected multiples of the stride up to {full}, which is padding=None, so that the zero shift is "
            "met and filters overlap; ortho_kernels.compat.deconv_orth_dist, the released code's form, takes any"
        )
    return own_stride, own
