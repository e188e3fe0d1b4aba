"""The curves of a group: each run's, and their mean where the runs have points in common."""

from collections.abc import Sequence

import numpy as np

from ..decimation import Floats

Points = tuple[Floats, Floats]  # x and y, each (points,)


def mean_curve(curves: Sequence[Points]) -> Points:
    """The mean at every x that all the curves have; NaN where one of them is NaN."""
    common = curves[0][0]
    for x, _ in curves[1:]:
        common = np.intersect1d(common, x)
    return common, np.mean([y[np.searchsorted(x, common)] for x, y in curves], axis=0)


def relative(spectrum: Sequence[float]) -> Floats:
    """Each value divided by the largest; what is not positive has no place on a log axis: NaN."""
    values = positive(np.asarray(spectrum, dtype=float))
    largest = np.nan_to_num(values).max(initial=0.0)
    return values / largest if largest else values


def positive(values: Floats) -> Floats:
    """NaN, which is a gap, for what has no place on a log axis."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
