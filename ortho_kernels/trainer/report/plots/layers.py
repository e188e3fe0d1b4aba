"""Every penalized layer: how far from orthogonal it was over training, and its singular values at the end."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..decimation import Floats
from ..groups import Group
from .drawing import by_setting, curves_of, draw_curves, thinned
from .looks import Look, legend, looks, text
from .means import Points, mean_curve, positive
from .panels import INK, MEDIUM, SMALL, Panel, legend_of, log_scale, panel, ramp, ramp_swatch, side_by_side

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREFIX = "penalty/"  # of the columns of evaluations.csv
MOST_GROUPS = 12
MOST_LAYERS = 30


def layer_residuals(groups: Sequence[Group]) -> str:
    """The penalty of each layer over the steps, a panel for each group; empty where no run was looked at.

    Groups of the same penalty share an axis, so that heights can be compared.
    """
    panels: list[Panel] = []
    names: list[str] = []
    shown = [group for group in groups if residuals_of(group)][:MOST_GROUPS]
    for _, part in by_setting(list(zip(shown, looks(shown), strict=True)), "penalty.name"):
        curves = {group.label: residuals_of(group) for group, _ in part}
        limits = _limits([y for layers in curves.values() for _, y in layers.values()])
        for group, _ in part:
            names = max(names, list(residuals_of(group)), key=len)
            panels.append(_residual_panel(group, limits))
    if not panels:
        return ""
    ends = names[0] if len(names) == 1 else f"from {names[0]} (first) to {names[-1]} (last)"
    note = _left_out(len([group for group in groups if residuals_of(group)]), MOST_GROUPS, "groups")
    return side_by_side(panels, MEDIUM, legend_of([(ramp_swatch(), ends)]) + note)


def residuals_of(group: Group) -> dict[str, Points]:
    """The mean curve over the runs of each layer, in the order of the layers."""
    columns = [name for name in group.runs[0].evaluations if name.startswith(PREFIX)]
    curves = {name: curves_of(group.runs, "evaluations", name) for name in columns}
    means = {name.removeprefix(PREFIX): mean_curve(of_runs) for name, of_runs in curves.items() if of_runs}
    return {_short(name): (x, positive(y)) for name, (x, y) in means.items() if np.isfinite(positive(y)).any()}


def weight_spectra(groups: Sequence[Group]) -> str:
    """Singular values of every penalized weight, a panel a layer (evenly chosen layers, if there are many)."""
    layers = list(dict.fromkeys(layer for group in groups for layer in group.runs[0].weights))
    few = min(len(layers), MOST_LAYERS)
    chosen = [layers[round(i * (len(layers) - 1) / max(1, few - 1))] for i in range(few)]
    looked = list(zip(groups, looks(groups), strict=True))
    panels = []
    for layer in chosen:
        spectra = [(spectra_of(group, layer), look) for group, look in looked]
        if any(np.isfinite(values).any() for of_group, _ in spectra for values in of_group):
            panels.append(_spectrum_panel(layer, spectra))
    return side_by_side(panels, SMALL, legend(groups) + _left_out(len(layers), MOST_LAYERS, "layers"))


def spectra_of(group: Group, layer: str) -> list[Floats]:
    """The singular values of that layer in each run that has it, in descending order."""
    return [np.sort(np.asarray(run.weights[layer]))[::-1] for run in group.runs if run.weights.get(layer)]


def _residual_panel(group: Group, limits: tuple[float, float]) -> Panel:
    def draw(axes: "Axes") -> None:
        layers = residuals_of(group)
        for depth, (x, y) in enumerate(layers.values()):
            color = ramp(depth / max(1, len(layers) - 1))
            axes.plot(x, y, color=color, linewidth=1.1, marker="." if len(x) == 1 else "")
        axes.set_ylim(limits)
        axes.set_xlabel("step")
        log_scale(axes.yaxis)

    return panel(text(group), MEDIUM, draw)


def _spectrum_panel(layer: str, spectra: Sequence[tuple[Sequence[Floats], Look]]) -> Panel:
    def draw(axes: "Axes") -> None:
        for of_group, look in spectra:
            if of_group:
                draw_curves(axes, [thinned(values) for values in of_group], look, marked=False)
        axes.axhline(1.0, color=INK, linewidth=0.7, linestyle=":")  # orthogonal
        axes.set_ylim(bottom=0)

    return panel(_short(layer), SMALL, draw)


def _limits(curves: Sequence[Floats]) -> tuple[float, float]:
    """With some room, on a log axis."""
    values = np.concatenate(curves)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(1.1, (high / low) ** 0.05)
    return low / room, high * room


def _left_out(count: int, most: int, what: str) -> str:
    return f'<p class="note">{most} of {count} {what} are shown.</p>' if count > most else ""


def _short(layer: str) -> str:
    return layer.removesuffix(".weight")
