"""Spectra of features: of the representation, and of the stages on the way to it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..groups import Group
from ..record import RunRecord
from .drawing import draw_curves, thinned
from .looks import Look, legend, looks
from .means import Points, relative
from .panels import INK, LARGE, MEDIUM, Panel, Size, log_scale, panel, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 1e-10  # of the largest eigenvalue: what lies below is rounding


def representation_spectra(groups: Sequence[Group]) -> str:
    """Eigenvalues of the covariance of the features, relative to the largest: over directions, and on two log axes."""
    spectra = _spectra(groups, lambda run: run.representation)
    if not spectra:
        return ""
    panels = [
        _panel("Eigenvalue / largest", LARGE, spectra),
        _panel("The same on two log axes (dotted: slope −1)", LARGE, spectra, straight=True),
    ]
    return side_by_side(panels, LARGE, legend(groups, said=_slope))


def stage_spectra(groups: Sequence[Group]) -> str:
    """The same of each stage's features, a panel a stage; empty where no run has any."""
    names = dict.fromkeys(name for group in groups for run in group.runs for name in run.spectra.get("stages", {}))
    panels = []
    for name in names:
        if spectra := _spectra(groups, partial(_stage, name)):
            panels.append(_panel(name, MEDIUM, spectra))
    return side_by_side(panels, MEDIUM, legend(groups))


def _stage(name: str, run: RunRecord) -> Sequence[float] | None:
    return run.spectra.get("stages", {}).get(name)


def _spectra(
    groups: Sequence[Group], spectrum_of: Callable[[RunRecord], Sequence[float] | None]
) -> list[tuple[list[Points], Look]]:
    """The curves of the groups that have one."""
    spectra = []
    for group, look in zip(groups, looks(groups), strict=True):
        found = [relative(spectrum) for run in group.runs if (spectrum := spectrum_of(run))]
        curves = [thinned(np.where(values < LEAST, np.nan, values)) for values in found if np.isfinite(values).any()]
        if curves:
            spectra.append((curves, look))
    return spectra


def _panel(title: str, size: Size, spectra: Sequence[tuple[Sequence[Points], Look]], straight: bool = False) -> Panel:
    """`straight`: both axes are log ones, on which a power law is a straight line."""

    def draw(axes: "Axes") -> None:
        for curves, look in spectra:
            draw_curves(axes, curves, look, marked=False)
        log_scale(axes.yaxis)
        axes.set_xlabel("direction")
        if straight:
            limits = axes.get_ylim()
            log_scale(axes.xaxis)
            last = max(x[-1] for curves, _ in spectra for x, _ in curves)
            axes.plot([1, last], [1, 1 / last], color=INK, linewidth=0.7, linestyle=":")
            axes.set_ylim(limits)

    return panel(title, size, draw)


def _slope(group: Group) -> str:
    """alpha of the power law, the mean over the runs, where the spectra have been summed up."""
    found: list[Any] = [run.spectra.get("summary", {}).get("alpha_req") for run in group.runs]
    alphas = [alpha for alpha in found if alpha is not None and math.isfinite(alpha)]
    return f"α = {sum(alphas) / len(alphas):.2f}" if alphas else ""
