"""The curves of detectors: losses over the steps of training, precision over recall."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..groups import Group
from ..record import RunRecord
from .drawing import curves_of, draw_curves
from .looks import legend, looks
from .means import Points
from .panels import LARGE, MEDIUM, SMALL, Panel, Size, panel, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSSES = {
    "loss": "Loss",
    "loss_objectness": "Proposals: object or not",
    "loss_rpn_box_reg": "Proposals: boxes",
    "loss_classifier": "Box head: classes",
    "loss_box_reg": "Box head: boxes",
}


def losses(groups: Sequence[Group]) -> str:
    """The whole loss and its parts, by the names that torchvision gives them."""
    panels = []
    for column, title in LOSSES.items():
        curves = [curves_of(group.runs, "metrics", column) for group in groups]
        if any(curves):

            def draw(axes: "Axes", curves: list = curves) -> None:
                for of_group, look in zip(curves, looks(groups), strict=True):
                    draw_curves(axes, of_group, look)
                axes.set_xlabel("step")
                axes.set_ylim(bottom=0)

            panels.append(panel(title, MEDIUM, draw))
    return side_by_side(panels, MEDIUM, legend(groups))


def precision_and_recall(groups: Sequence[Group]) -> str:
    """Precision over recall at an IoU of 0.5, the mean over the classes."""
    curves = [[_curve(run, list(run.results["per_class"])) for run in group.runs] for group in groups]
    return side_by_side([_precision_panel("Mean over the classes", LARGE, groups, curves)], LARGE, legend(groups))


def precision_by_class(groups: Sequence[Group], classes: Sequence[str]) -> str:
    """The same of each class, in small."""
    panels = []
    for name in classes:
        curves = [[_curve(run, [name]) for run in group.runs if name in run.results["per_class"]] for group in groups]
        panels.append(_precision_panel(name, SMALL, groups, curves))
    return side_by_side(panels, SMALL, legend(groups))


def _curve(run: RunRecord, classes: Sequence[str]) -> Points:
    curves = [run.results["per_class"][name]["curve50"] for name in classes]
    precision = np.mean(np.asarray(curves, dtype=float), axis=0)
    return np.linspace(0, 1, len(precision)), precision


def _precision_panel(title: str, size: Size, groups: Sequence[Group], curves: Sequence[Sequence[Points]]) -> Panel:
    def draw(axes: "Axes") -> None:
        from matplotlib.ticker import MultipleLocator

        for of_group, look in zip(curves, looks(groups), strict=True):
            draw_curves(axes, of_group, look, marked=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(0.5 if size is SMALL else 0.25))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.03)
        if size is not SMALL:
            axes.set_xlabel("recall")
            axes.set_ylabel("precision")

    return panel(title, size, draw)
