"""Weights seen as matrices, worked out once for each list of shapes, strides and dtypes.

A linear weight `(out, in)` is one `out x in` matrix. A convolution weight `(out, in / g, kh, kw)` with `g` groups is `g`
matrices of `out / g` rows and `in / g * kh * kw` columns, one filter a row. A transposed convolution's weight
`(in, out / g, kh, kw)` is that of the convolution of which it is the adjoint, so the same rule serves.

Kernels number columns as they lie in memory: a channels_last weight has another order of columns than a contiguous one,
and the same Gram. `csrc/torch/weight_views.cpp` holds the same rules; a test compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple, TypeGuard, TypeVar, overload

import torch
from torch import Tensor

from .graph_reads import read_by_graphs
from .likeness import likeness
from .weight_checks import PLAIN, check_groups, check_storage, check_weights, is_sharded_weight

ROWS, COLS = 0, 1  # the sides, as the operators number them


class WeightView(NamedTuple):
    """One weight as the penalty sees it: `groups` matrices of `rows x cols`. Strides count elements.

    `column_dims` are the dimensions that make up the columns, slowest in memory first, without those of size one.
    `column_stride` is None where no single stride leads through them: such a weight is copied.
    """

    groups: int
    rows: int
    cols: int
    row_stride: int
    column_stride: int | None
    column_dims: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.groups, self.rows, self.cols

    def resolve(self, side: str) -> str:
        """`"rows"` for the Gram W W^T or `"cols"` for W^T W; a tie between small and large goes to `rows`."""
        if side == "small":
            return "rows" if self.rows <= self.cols else "cols"
        if side == "large":
            return "cols" if self.rows <= self.cols else "rows"
        return side

    def order(self, side: str) -> int:
        """The order n of the Gram on that side."""
        return self.rows if self.resolve(side) == "rows" else self.cols

    def __str__(self) -> str:
        return f"{self.groups} x ({self.rows} x {self.cols})" if self.groups > 1 else f"{self.rows} x {self.cols}"


def view_weight(weight: Tensor, groups: int) -> WeightView:
    """The view of a weight that is known to fit (see `check_weights`)."""
    dims = column_dims(weight)
    return WeightView(
        groups,
        *matrix_shape(weight, groups),
        weight.stride(0),
        column_stride(weight.shape, weight.stride(), dims),
        dims,
    )


def matrix_shape(weight: Tensor, groups: int) -> tuple[int, int]:
    """Rows and columns of each of a weight's matrices."""
    return weight.shape[0] // groups, math.prod(weight.shape[1:])


def column_dims(weight: Tensor) -> tuple[int, ...]:
    """See `WeightView`. Only in unusual layouts are strides compared: under Dynamo they may be symbols."""
    order = list(range(1, weight.dim()))
    if _is_channels_last(weight):
        order.append(order.pop(0))
    elif not weight.is_contiguous():
        order.sort(key=weight.stride, reverse=True)
    return tuple(dim for dim in order if weight.shape[dim] != 1)


def _is_channels_last(weight: Tensor) -> bool:
    """Channels last, and not contiguous: kernels of one channel or one pixel are both."""
    memory_format = {4: torch.channels_last, 5: torch.channels_last_3d}.get(weight.dim())
    return (
        memory_format is not None and not weight.is_contiguous() and weight.is_contiguous(memory_format=memory_format)
    )


def column_stride(shape: Sequence[int], strides: Sequence[int], dims: Sequence[int]) -> int | None:
    """The stride of the columns if these dimensions, slowest first, follow each other at one; else None."""
    if 0 in shape:
        return 1
    if any(strides[slow] != strides[fast] * shape[fast] for slow, fast in pairwise(dims)):
        return None
    return strides[dims[-1]] if dims else 1


def column_permutation(weight: Tensor) -> list[int] | None:
    """Where each column, as they lie in memory, stands in the order of the shape; None where both orders agree."""
    dims = column_dims(weight)
    if list(dims) == sorted(dims):
        return None
    columns = torch.arange(math.prod(weight.shape[1:]), device="cpu").view(weight.shape[1:])
    ones = [dim for dim in range(1, weight.dim()) if dim not in dims]
    return columns.permute([dim - 1 for dim in (*dims, *ones)]).flatten().tolist()


def triangle(order: int) -> int:
    """The entries of the lower triangle of a symmetric matrix."""
    return order * (order + 1) // 2


def gradient_strides(weight: Tensor) -> tuple[int, ...]:
    """Those of a gradient as the kernels write it: its columns in the order of the weight's.

    They are the weight's own, unless its memory overlaps or has gaps, or it is copied.
    """
    if weight.is_contiguous() or _is_channels_last(weight):
        return weight.stride()
    dims = column_dims(weight)[::-1]
    if column_stride(weight.shape, weight.stride(), dims[::-1]) is None:  # it is copied
        return contiguous_strides(weight.shape)
    rows_first = _dense_strides(weight.shape, (*dims, 0))
    for dense in (rows_first, _dense_strides(weight.shape, (0, *dims))):  # the latter of a transposed weight
        if all(dense[dim] == weight.stride(dim) for dim in (0, *dims)):
            return weight.stride()
    return rows_first


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return _dense_strides(shape, range(len(shape) - 1, -1, -1))


def _dense_strides(shape: Sequence[int], dims: Sequence[int]) -> tuple[int, ...]:
    """Of a tensor without gaps, in which these dimensions lie from the fastest to the slowest."""
    strides, stride = [1] * len(shape), 1
    for dim in dims:
        strides[dim] = stride
        stride *= shape[dim]
    return tuple(strides)


def new_gradient(weight: Tensor) -> Tensor:
    """Uninitialized, of the weight's shape, dtype and device, with `gradient_strides`."""
    return torch.empty_strided(weight.shape, gradient_strides(weight), dtype=weight.dtype, device=weight.device)


class GradientSlots(NamedTuple):
    """Gradients to be made, and where they lie in one buffer.

    Attributes:
        dtypes, shapes, strides: those of each.
        begins: the first entry of each in the buffer, counted in its dtype.
        nbytes: the buffer's size.
    """

    dtypes: list[torch.dtype]
    shapes: list[tuple[int, ...]]
    strides: list[tuple[int, ...]]
    begins: list[int]
    nbytes: int

    # Made in every step: one call for each gradient, without a line of Python between them.

    def of(self, buffer: Tensor) -> list[Tensor]:
        """The gradients in this buffer of bytes."""
        typed = {dtype: buffer.view(dtype) for dtype in set(self.dtypes)}
        # Tensors of their own, no views of the buffer, where nothing has to see how they are made: in half the time.
        view = torch.as_strided if is_transformed() else _SEPARATE
        return [*map(view, map(typed.__getitem__, self.dtypes), self.shapes, self.strides, self.begins)]

    def apart(self) -> list[Tensor]:
        """The gradients on the CPU, each in memory of its own."""
        new = _empty_on_cpu if is_transformed() else _EMPTY_ON_CPU
        return [*map(new, self.shapes, self.strides, self.dtypes)]


def _empty_on_cpu(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(shape, strides, dtype=dtype, device="cpu")


# No part of torch's public interface. They pass the dispatcher by.
_SEPARATE: Any = getattr(torch._C._dynamo.guards, "_reinterpret_tensor", torch.as_strided)
_EMPTY_ON_CPU: Any = getattr(torch._C._dynamo.guards, "_empty_strided_cpu", _empty_on_cpu)
_ALIGNMENT = 256  # of slots, in bytes: that of torch's own allocations


def gradient_slots(weights: Sequence[Tensor]) -> GradientSlots:
    """The slots of the weights' gradients, at the same distances from each other in every step."""
    begins, nbytes = [], 0
    for weight in weights:
        begins.append(nbytes // weight.element_size())
        nbytes += -(-weight.nbytes // _ALIGNMENT) * _ALIGNMENT
    dtypes, shapes = [weight.dtype for weight in weights], [tuple(weight.shape) for weight in weights]
    return GradientSlots(dtypes, shapes, [*map(gradient_strides, weights)], begins, nbytes)


class WeightViews:
    """The views of a list of weights and what follows from them, constants on their device included.

    Holds no weight: all lists that look the same share it.

    Attributes:
        backends: the backend that was chosen, by what was asked for and the options.
        gradient_forms: strides and dtype of each weight's `new_gradient`.
        gradient_slots: by which weights are wanted, see `GradientSlots`.
        plain: whether all weights are tensors or parameters, of no other class.
        layouts: which block of each weight is on which rank; None for one that is not sharded.
        is_sharded: whether any weight is.
        sharded: what computes the penalties then, by the backend of what is here and the options.
    """

    def __init__(self, weights: Sequence[Tensor], groups: Sequence[int]) -> None:
        self.groups = [int(count) for count in groups]
        self.views = [view_weight(weight, count) for weight, count in zip(weights, self.groups, strict=True)]
        self.dtype = compute_dtype(weights)
        self.device = weights[0].device if weights else torch.device("cpu")
        self.matrix_count = sum(self.groups)
        self.backends: dict[tuple[str, Any], Any] = {}
        self.gradient_forms = [(gradient_strides(weight), weight.dtype) for weight in weights]
        self.gradient_slots: dict[tuple[bool, ...], GradientSlots] = {}
        self.plain = PLAIN.issuperset(map(type, weights))
        self.layouts: list[Any] = [weight.layout if is_sharded_weight(weight) else None for weight in weights]
        self.is_sharded = any(layout is not None for layout in self.layouts)
        self.sharded: dict[tuple[str, Any], Any] = {}
        self._copied = [index for index, view in enumerate(self.views) if view.column_stride is None]
        self._sides: dict[str, list[int]] = {}
        self._orders: dict[str, list[int]] = {}
        self._constants: dict[tuple[str, str], Tensor] = {}
        self._fitting: Callable[..., bool] | None = None  # the likeness of gradients that fit

    def sides(self, side: str) -> list[int]:
        """The Gram of each weight, as the operators number them."""
        if side not in self._sides:
            self._sides[side] = [ROWS if view.resolve(side) == "rows" else COLS for view in self.views]
        return self._sides[side]

    def orders(self, side: str) -> list[int]:
        """The order of every matrix's Gram."""
        if side not in self._orders:
            self._orders[side] = [view.order(side) for view in self.views for _ in range(view.groups)]
        return self._orders[side]

    def vector_sizes(self, side: str) -> list[int]:
        """The number of entries of each weight's start vectors, those of all its groups."""
        return [view.groups * view.order(side) for view in self.views]

    def null_space(self, side: str) -> Tensor:
        """How many more eigenvalues -1 the residual of each matrix has on that side than on the small one."""
        constant = self._constants.get(("null space", side))
        if constant is None:
            excess = [n - small for n, small in zip(self.orders(side), self.orders("small"), strict=True)]
            constant = self._keep(("null space", side), excess)
        return read_by_graphs(constant)

    def inverse_entries(self, side: str) -> Tensor:
        """One over the number of entries of each matrix's Gram; 0 for a Gram without entries."""
        constant = self._constants.get(("inverse entries", side))
        if constant is None:
            constant = self._keep(("inverse entries", side), self.entry_shares(side))
        return read_by_graphs(constant)

    def entry_shares(self, side: str) -> list[float]:
        """As `inverse_entries`, numbers."""
        return [1 / entries if entries else 0.0 for entries in self.entries(side)]

    def entries(self, side: str) -> list[int]:
        """The number of entries of every matrix's Gram."""
        return [n**2 for n in self.orders(side)]

    def _keep(self, name: tuple[str, str], numbers: Sequence[float]) -> Tensor:
        """Made once, in the compute dtype: to copy numbers to a GPU takes a wait, which a CUDA graph can't capture."""
        constant = torch.tensor(numbers, dtype=self.dtype, device=self.device)
        if not is_transformed():
            self._constants[name] = constant
        return constant

    def fit_gradients(self, targets: Sequence[Tensor | None]) -> bool:
        """Whether these are distinct tensors, one a weight, of the `gradient_forms`."""
        if torch.compiler.is_compiling():
            return self._are_gradients(targets)
        if self._fitting is not None and self._fitting(*targets):
            return True
        if not self._are_gradients(targets):
            return False
        self._fitting = likeness(targets)
        return True

    def _are_gradients(self, targets: Sequence[Tensor | None]) -> TypeGuard[Sequence[Tensor]]:
        if len(set(map(id, targets))) != len(targets):
            return False
        return self.gradient_forms == [target is not None and (target.stride(), target.dtype) for target in targets]

    def __getstate__(self) -> dict[str, Any]:
        """A likeness can't be pickled."""
        return self.__dict__ | {"_fitting": None}

    def in_place(self, weights: list[Tensor]) -> list[Tensor]:
        """The weights, with a copy in the place of those that no strides of a matrix describe."""
        if not self._copied:
            return weights
        weights = list(weights)
        for index in self._copied:
            check_storage([weights[index]], [self.name(index)])
            weights[index] = weights[index].contiguous()
        return weights

    def name(self, index: int) -> str:
        """What errors call the weight."""
        return f"weights[{index}]"


def compute_dtype(weights: Sequence[Tensor]) -> torch.dtype:
    """The dtype of values: float64 where any weight is float64, else float32."""
    return torch.float64 if any(weight.dtype is torch.float64 for weight in weights) else torch.float32


def is_transformed() -> bool:
    """Whether a trace or a transform sees what is computed now; a tensor made meanwhile is nothing to keep."""
    return is_traced() or torch._C._are_functorch_transforms_active()


def is_traced() -> bool:
    """Whether a trace, or another mode that sees every operation, sees what is computed now: sizes may be symbols."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


class Seen(NamedTuple):
    """The views of some weights, and whether others look as those did."""

    views: WeightViews
    looks_alike: Callable[..., bool]


Views = TypeVar("Views", bound=WeightViews)

_CAPACITY = 256  # a process with more models than that works some of them out again
_cache: dict[tuple, WeightViews] = {}  # by all that the checks and the views depend on
_latest: dict[tuple, Seen] = {}  # of those that look alike at first sight
_changing = Lock()


@overload
def weight_views(
    weights: Sequence[Tensor], groups: int | Sequence[int], names: Sequence[str] | None = None
) -> WeightViews: ...
@overload
def weight_views(
    weights: Sequence[Tensor], groups: int | Sequence[int], names: Sequence[str] | None, form: type[Views]
) -> Views: ...
def weight_views(
    weights: Sequence[Tensor],
    groups: int | Sequence[int],
    names: Sequence[str] | None = None,
    form: type[WeightViews] = WeightViews,
) -> WeightViews:
    """The views of these weights; `TypeError` or `ValueError`, naming the weight, where one can't be penalized."""
    counts = (groups,) * len(weights) if type(groups) is int else groups
    if type(counts) is not tuple or len(counts) != len(weights):
        counts = check_groups(counts, len(weights))
    if torch.compiler.is_compiling() or not {int}.issuperset(map(type, counts)):  # True counts as 1 for a dict
        return _checked_views(weights, counts, names, form)
    try:
        sight = (form, counts, weights[0].shape if weights else None)
        latest = _latest.get(sight)
        if latest is not None and latest.looks_alike(*weights):
            return latest.views
        signature = (form, counts, *[(type(w), w.shape, w.stride(), w.dtype, w.device, w.layout) for w in weights])
        views = _cache.get(signature)  # hashed here, once
    except (AttributeError, TypeError, RuntimeError):  # a weight can't be asked: the checks say what is wrong
        return _checked_views(weights, counts, names, form)
    if views is None:
        views = _checked_views(weights, counts, names, form)
        _keep(_cache, signature, views)
    if views.plain and len(set(map(id, weights))) == len(weights):  # as a likeness wants them
        _keep(_latest, sight, Seen(views, likeness(weights)))
    return views


def _checked_views(
    weights: Sequence[Tensor], counts: tuple[int, ...], names: Sequence[str] | None, form: type[WeightViews]
) -> WeightViews:
    check_weights(weights, counts, names)
    return form(weights, counts)


def _keep(cache: dict[tuple, Any], key: tuple, found: Any) -> None:
    """In the place of the oldest where there are many."""
    with _changing:
        while len(cache) >= _CAPACITY:
            del cache[next(iter(cache))]
        cache[key] = found
