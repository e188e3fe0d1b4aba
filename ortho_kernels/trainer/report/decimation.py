"""Long curves, as few points as a picture can show."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def decimate(x: Floats, y: Floats, columns: int) -> tuple[Floats, Floats]:
    """The curve through the first, least, largest and last point of each of `columns` equal parts of the x axis.

    Drawn `columns` pixels wide it covers the same pixels as the whole curve, so no spike is lost (M4, Jugel et al.,
    VLDB 2014). `x` must not fall. Values that are not finite are gaps: NaN.
    """
    y = np.where(np.isfinite(y), y, np.nan)
    if len(x) <= 4 * columns:
        return x, y
    width = (x[-1] - x[0]) / columns or 1.0
    part = np.minimum((x - x[0]) / width, columns - 1).astype(int)
    first = np.flatnonzero(np.diff(part, prepend=-1))
    last = np.append(first[1:], len(x)) - 1
    least, largest = np.fmin.reduceat(y, first), np.fmax.reduceat(y, first)
    middle = (x[first] + x[last]) / 2
    xs = np.stack([x[first], middle, middle, x[last]], axis=1)
    ys = np.stack([y[first], least, largest, y[last]], axis=1)
    return xs.ravel(), ys.ravel()
