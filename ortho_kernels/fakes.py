"""What the operators of `ops.py` return, by shape and dtype alone: for torch.compile and torch.export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .shifts import kept_entries
from .weight_views import ROWS, compute_dtype, matrix_shape, triangle


def orders(weights: Sequence[Tensor], groups: Sequence[int], sides: Sequence[int]) -> list[int]:
    """The order n of every matrix, groups of one weight side by side."""
    result = []
    for weight, count, side in zip(weights, groups, sides, strict=True):
        rows, cols = matrix_shape(weight, count)
        result += [rows if side == ROWS else cols] * count
    return result


def kept_pairs(start: Tensor, iterations: int, through: bool) -> int:
    """The number of vectors' pairs that are kept for the backward."""
    return iterations if through else 1


def _triangles(weights, groups, sides, *options):
    *_, keep = options
    n = orders(weights, groups, sides)
    return _new(weights, len(n), sum(map(triangle, n)) if keep else 0)


def _srip(weights, groups, sides, start, iterations, through, keep):
    n, pairs = orders(weights, groups, sides), kept_pairs(start, iterations, through)
    return start.new_empty(len(n)), start.new_empty(pairs * 2 * sum(n) if keep else 0)


def _cross_gram(weights, others, groups, norm, keep):
    rows = [orders(each, groups, [ROWS] * len(groups)) for each in (weights, others)]
    return _new([*weights, *others], sum(groups), sum(n * m for n, m in zip(*rows, strict=True)) if keep else 0)


def _convolution_orthogonality(weights, groups, strides, paddings, identities, keep):
    pairs = [list(zip(numbers[::2], numbers[1::2], strict=True)) for numbers in (strides, paddings, identities)]
    described = zip(weights, groups, *pairs, strict=True)
    kept = sum(count * kept_entries(weight.shape, count, *each) for weight, count, *each in described) if keep else 0
    return _new(weights, sum(groups), kept)


def _extreme_eigenvalues(weights, groups, start, keep):
    kept = (8, len(start)) if keep else (1, 0)
    return start.new_empty((2, sum(groups)), dtype=torch.float64), start.new_empty(kept)


def _gram_times_vectors(weights, groups, vectors):
    return vectors.new_empty(len(vectors), dtype=torch.float64)


def _new(weights, values, kept):
    like = {"dtype": compute_dtype(weights)}
    return weights[0].new_empty(values, **like), weights[0].new_empty(kept, **like)


def _nothing(*arguments):
    """A backward operator writes to what it is given."""


FAKES: dict[str, Callable[..., Any]] = {
    "soft_orthogonality": _triangles,
    "soft_orthogonality_backward": _nothing,
    "residual_norm": _triangles,
    "unit_rows_norm": _triangles,
    "unit_rows_norm_backward": _nothing,
    "srip": _srip,
    "srip_backward": _nothing,
    "extreme_eigenvalues": _extreme_eigenvalues,
    "extreme_eigenvalues_backward": _nothing,
    "gram_times_vectors": _gram_times_vectors,
    "cross_gram": _cross_gram,
    "cross_gram_backward": _nothing,
    "convolution_orthogonality": _convolution_orthogonality,
    "convolution_orthogonality_backward": _nothing,
}
