"""How the covariance of features goes from layer to layer: distances from white, eigenvalues, and norms of the weights."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..propagation_record import REPRESENTATION, MeasuredNetwork, by_architecture
from .looks import series, swatch
from .panels import MEDIUM, SMALL, Panel, legend_of, log_scale, panel, side_by_side
from .standalone import standalone

if TYPE_CHECKING:
    from matplotlib.axes import Axes

APART = 0.25  # of the width, between two names of layers below a panel
MOST_SPECTRA = 4  # layers whose eigenvalues are drawn
SCALE = 0.01  # the least height of a panel of sigmas: rounding looks like 0
NOTE = "A line for each kind of layer (conv1, qkv, ...). Dotted: behind layers if what arrives were white"
LEAST = 1e-4  # of an eigenvalue over the largest that is drawn


def covariances(networks: Sequence[MeasuredNetwork]) -> str:
    """For each kind of input the distance from white of what arrives at each layer and of what is behind it, and the
    effective rank behind it."""
    panels = [one for row in _covariance_panels(networks) for one in row]
    return side_by_side(panels, MEDIUM, _legend(networks))


def eigenvalues(networks: Sequence[MeasuredNetwork]) -> str:
    """Of the covariance behind a few layers, evenly chosen, and of the representation."""
    panels = []
    for kind in networks[0].kinds:
        layers = networks[0].layers(kind)
        few = min(len(layers), MOST_SPECTRA)
        chosen = [layers[round(i * (len(layers) - 1) / max(1, few - 1))] for i in range(few)]
        panels += [_eigenvalue_panel(networks, kind, layer) for layer in [*chosen, REPRESENTATION]]
    return side_by_side(panels, SMALL, _legend(networks))


def sigmas(networks: Sequence[MeasuredNetwork]) -> str:
    """The spectral norm of R of each weight, a panel for each network: the true one and SRIP's estimates."""
    names = ["true sigma", "SRIP's estimate: mean and range"]
    if any(row["srip_warm"] is not None for network in networks for row in network.residuals):
        names.append("SRIP's estimate, warm start")
    legend = legend_of((swatch(series(i), marked=i > 0), name) for i, name in enumerate(names))
    return side_by_side([_sigma_panel(network) for network in networks], MEDIUM, legend)


def picture(content: Mapping[str, Any]) -> str:
    """The covariances of all networks as one SVG file, which follows the reader's light or dark mode."""
    rows: list[tuple[str, list[Panel]]] = []
    for architecture, networks in by_architecture(content).items():
        first, *others = _covariance_panels(networks)
        rows += [(architecture, first), *[("", panels) for panels in others]]
    labels = dict.fromkeys(network.weights for networks in by_architecture(content).values() for network in networks)
    return standalone(rows, MEDIUM, [(series(i), label) for i, label in enumerate(labels)], NOTE)


def _legend(networks: Sequence[MeasuredNetwork]) -> str:
    return legend_of((swatch(series(i)), network.weights) for i, network in enumerate(networks))


def _covariance_panels(networks: Sequence[MeasuredNetwork]) -> list[list[Panel]]:
    """Rows of panels, one for each kind of input."""
    kinds = networks[0].kinds
    return [
        [_panel(f"Distance from white before layers, {kind}", networks, kind, "arriving_distance") for kind in kinds],
        [
            _panel(f"Distance from white behind layers, {kind}", networks, kind, "distance", dotted="if_white")
            for kind in kinds
        ],
        [
            _panel(f"Effective rank behind layers, %, {kind}", networks, kind, "rank_share", percent=True)
            for kind in kinds
        ],
    ]


def _panel(
    title: str, networks: Sequence[MeasuredNetwork], kind: str, column: str, dotted: str = "", percent: bool = False
) -> Panel:
    """A column of the table over the layers, all kinds of input on one scale; another one, dotted, behind it."""

    def draw(axes: "Axes") -> None:
        for i, network in enumerate(networks):
            places = by_role(network.layers(kind))
            if dotted:
                _draw(
                    axes, places, network.values(kind, dotted), {**series(i).line(), "linestyle": ":", "linewidth": 1.1}
                )
            shown = [(100 if percent else 1) * value for value in network.values(kind, column)]
            _draw(axes, places, shown, series(i).line())
        axes.set_ylim(0, 102 if percent else _largest(networks))
        _name_layers(axes, networks[0].layers(kind))

    return panel(title, MEDIUM, draw)


def _eigenvalue_panel(networks: Sequence[MeasuredNetwork], kind: str, layer: str) -> Panel:
    def draw(axes: "Axes") -> None:
        for i, network in enumerate(networks):
            values = np.array(network.eigenvalues(kind, layer))
            shares = np.arange(1, len(values) + 1) / max(1, len(values))
            axes.plot(100 * shares, np.maximum(values, LEAST), **series(i).line())
        axes.set_ylim(LEAST, 1.2)
        axes.set_xlim(0, 100)
        log_scale(axes.yaxis)

    return panel(f"{layer.removeprefix('network.')}, {kind}", SMALL, draw)


def _sigma_panel(network: MeasuredNetwork) -> Panel:
    rows = network.residuals

    def draw(axes: "Axes") -> None:
        places = np.arange(len(rows))
        axes.plot(places, [row["sigma"] for row in rows], **series(0).line())
        means = np.array([row["srip_mean"] for row in rows])
        ranges = [means - [row["srip_least"] for row in rows], np.array([row["srip_most"] for row in rows]) - means]
        axes.errorbar(places, means, ranges, fmt=series(1).marker, markersize=2.6, linewidth=0.9, color=series(1).color)
        if any(row["srip_warm"] is not None for row in rows):
            warm = [np.nan if row["srip_warm"] is None else row["srip_warm"] for row in rows]
            axes.plot(places, warm, series(2).marker, markersize=2.6, color=series(2).color)
        axes.set_ylim(0, max(1.05 * max(row["sigma"] for row in rows), SCALE))
        _name_layers(axes, [row["layer"] for row in rows])

    return panel(f"Spectral norm of R, {network.weights}", MEDIUM, draw)


def _draw(axes: "Axes", places: Sequence[int | None], values: Sequence[float], look: dict[str, Any]) -> None:
    """A line through the layers at these places; None interrupts it."""
    x = [np.nan if place is None else place for place in places]
    axes.plot(x, [np.nan if place is None else values[place] for place in places], **look)


def by_role(layers: Sequence[str]) -> list[int | None]:
    """The places of layers of the same role in different blocks, role by role, None between two roles.

    Their names differ in the numbers before the last part alone: `blocks.0.mlp.fc1` and `blocks.1.mlp.fc1`. A layer of a
    role of its own goes with the one that follows it.
    """
    roles = [re.sub(r"\d+(?=.*\.)", "", layer) for layer in layers]
    for i in reversed(range(len(roles) - 1)):
        if roles.count(roles[i]) == 1:
            roles[i] = roles[i + 1]
    places: list[int | None] = []
    for role in dict.fromkeys(roles):
        places += [*(i for i, own in enumerate(roles) if own == role), None]
    return places


def _largest(networks: Sequence[MeasuredNetwork]) -> float:
    """The top of all panels of distances, so that heights can be compared."""
    values = [
        value
        for network in networks
        for kind in network.kinds
        for column in ("distance", "if_white", "arriving_distance")
        for value in network.values(kind, column)
    ]
    return 1.05 * float(np.nanmax(values)) if np.isfinite(values).any() else 1.0


def _name_layers(axes: "Axes", layers: Sequence[str]) -> None:
    """Below the first layer of each stage or block, where there is room."""
    ticks: dict[int, str] = {}
    for i, stage in enumerate(map(_stage, layers)):
        if stage not in ticks.values() and (not ticks or i - max(ticks) >= APART * len(layers)):
            ticks[i] = stage
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(-0.5, len(layers) - 0.5)


def _stage(layer: str) -> str:
    """`network.blocks.3.attn.qkv` is of `blocks.3`, `layer2.0.conv1` of `layer2`."""
    parts = layer.removeprefix("network.").split(".")
    numbered = next((i for i, part in enumerate(parts) if any(map(str.isdigit, part))), 0)
    return ".".join(parts[: numbered + 1])
