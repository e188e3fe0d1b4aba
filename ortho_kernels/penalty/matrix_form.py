"""How the parameter of a layer holds its matrices, and the weight that the functions take in its place."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from ..batches import fold, folds_in_place
from ..weight_checks import check_storage


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

    def weight(self, parameter: Tensor, name: str) -> Tensor:
        """The parameter as the functions take it: a view, unless a batch can't be folded in place.

        Raises:
            RuntimeError: naming the weight, whose storage was freed.
        """
        if self.transposed:
            check_storage([parameter], [name])
            parameter = parameter.transpose(-1, -2)
        return fold(parameter, self.batch_dims, name)

    def is_view(self, parameter: Tensor) -> bool:
        """Whether `weight` is a view of a parameter with these strides."""
        return folds_in_place(parameter.transpose(-1, -2) if self.transposed else parameter, self.batch_dims)
