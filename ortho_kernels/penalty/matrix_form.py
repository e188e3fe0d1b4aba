"""How the parameter of a layer holds its matrices, and the weight that the functions take in its place."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor

from ..batches import fold
from ..distributed.sharded.weight import shard
from ..weight_checks import check_storage, is_sharded


class MatrixForm(NamedTuple):
    """The steps from a parameter to a weight `(out, ...)` whose groups are the matrices that count.

    Attributes:
        batch_dims: how many leading dimensions count matrices.
        transposed: whether the last two dimensions are (in, out).
        cuts: into how many blocks of rows each of these matrices is cut.
    """

    batch_dims: int = 0
    transposed: bool = False
    cuts: int = 1

    def rows(self, parameter: Tensor) -> int:
        """The rows of each matrix of the batch, before it is cut."""
        return parameter.shape[-1 if self.transposed else self.batch_dims]

    def groups(self, parameter: Tensor) -> int:
        """The number of matrices, blocks of rows one above the other in `weight`."""
        return math.prod(parameter.shape[: self.batch_dims]) * self.cuts

    def weight(self, parameter: Any, name: str) -> Any:
        """The parameter as the functions take it: a view, unless a batch can't be folded in place.

        Of a sharded one a `ShardedWeight`.

        Raises:
            RuntimeError: naming the weight, whose storage was freed.
        """
        if is_sharded(parameter):
            return shard(parameter, name, self.batch_dims, self.transposed)
        if self.transposed:
            check_storage([parameter], [name])
            parameter = parameter.transpose(-1, -2)
        return fold(parameter, self.batch_dims, name)


def same_view(gradient: Tensor, parameter: Tensor, weight: Tensor) -> Tensor | None:
    """The gradient of a parameter, seen as `weight`, a view of the parameter, sees it; None where its strides are others."""
    if gradient.stride() != parameter.stride():
        return None
    first = weight.storage_offset() - parameter.storage_offset() + gradient.storage_offset()
    return gradient.as_strided(weight.shape, weight.stride(), first)
