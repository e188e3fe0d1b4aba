"""How fast a spectrum falls: the exponent of its power law."""

import math

import torch
from torch import Tensor

FIRST, LAST = 4, 100  # the first of these, counted from 1, that the authors' code fits to, and the last
LEAST = 3  # eigenvalues that a line takes to be more than a guess


def alpha_req(eigenvalues: Tensor, first: int = FIRST, last: int = LAST) -> float:
    """alpha-ReQ (Agrawal et al., NeurIPS 2022): alpha of the power law lambda_i = c i^-alpha, for i from `first` to `last`.

    A line through log lambda_i over log i by least squares, each point weighted by 1 / i, so that all octaves of i count
    alike. Range and weights are those of the authors' code, which fits as Stringer et al. (Nature 2019) do. 0 is a white
    representation; the authors find the best ones near 1; what is far above 1 uses few directions.

    Args:
        eigenvalues: those of the features' covariance, `(dimensions,)`, in any order.
        first, last: the range, counted from 1, both included; it ends where the usable eigenvalues do. An eigenvalue
            is usable above the largest times dimensions times 2.2e-16: what is below is rounding.

    Returns:
        alpha; NaN where one of the eigenvalues is, or where fewer than 3 are usable.

    Raises:
        ValueError: for a table of eigenvalues, or a range that is none.
    """
    if eigenvalues.ndim != 1:
        raise ValueError(
            f"alpha_req takes the eigenvalues (dimensions,) of one covariance, got {tuple(eigenvalues.shape)}"
        )
    if not 1 <= first < last:
        raise ValueError(f"the range of eigenvalues must be 1 <= first < last, got first={first}, last={last}")
    values = eigenvalues.detach().to("cpu", torch.float64).sort(descending=True).values
    if not len(values) or not values.isfinite().all():
        return math.nan
    usable = values > values[0].clamp(min=0) * len(values) * torch.finfo(torch.float64).eps
    values = values[usable][first - 1 : last]
    if len(values) < LEAST:
        return math.nan
    index = torch.arange(first, first + len(values), dtype=torch.float64)
    weight = 1 / index
    x, y = index.log(), values.log()
    x = x - (weight * x).sum() / weight.sum()
    return -((weight * x * y).sum() / (weight * x.square()).sum()).item()
