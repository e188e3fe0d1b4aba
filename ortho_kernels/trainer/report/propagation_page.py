"""The page of a propagation: what is seen, in numbers, and the figures and tables behind it."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .plots import propagation as plots
from .propagation_record import KINDS, REPRESENTATION, MeasuredNetwork, by_architecture
from .style import PAGE, STYLE

READING = """<p class="note">The distance from white of features with a covariance C is |C / m &minus; I|<sub>F</sub> / &radic;d,
where m is the mean of the diagonal and d the number of features. It is the spread of the eigenvalues over their mean: 0 for
white features, &radic;(d &minus; 1) where one direction is left. Samples are positions of pictures. So many samples of white
features have the distance &radic;(d / samples) by chance (column <i>chance</i>).</p>
<p class="note">Proposition 1: with W W<sup>T</sup> = I and a white input, the output is white. In general its covariance is
W S W<sup>T</sup>, where S is the covariance of the patches that reach the layer. <i>If white</i> is the distance of
W W<sup>T</sup>, what the weight alone does; a layer with more outputs than inputs is never white. <i>Law</i> is the relative
error of W S W<sup>T</sup> against the covariance measured.</p>"""


def render(content: Mapping[str, Any]) -> str:
    groups = by_architecture(content)
    sections = [_section("What is seen", f"<ul>{''.join(map(_item, findings(content)))}</ul>", READING)]
    for architecture, networks in groups.items():
        sections += [
            _section(f"{architecture}: covariance of features, layer by layer", plots.covariances(networks), PROFILES),
            _section(f"{architecture}: eigenvalues", plots.eigenvalues(networks), EIGENVALUES),
            _section(f"{architecture}: weights", plots.sigmas(networks), SIGMAS, _weights_table(networks)),
            _section(f"{architecture}: layers", *[_layers_table(networks, kind) for kind in networks[0].kinds]),
        ]
    sections.append(_section("How it was measured", _facts(content)))
    return PAGE.format(
        head="",
        title=html.escape(f"From weights to features: {' and '.join(groups)}"),
        style=STYLE,
        lead=html.escape(_lead(content)),
        alarms="".join(f'<p class="alarm">{html.escape(text)}</p>' for text in unmeasured(content)),
        sections="\n".join(sections),
    )


PROFILES = (
    '<p class="note">Solid: the distance from white behind each layer. Dotted: what it would be if the layer&rsquo;s input '
    "were white. Thin: the distance of what arrives at the layer, after norm, activation and shortcut. Below, the effective "
    "rank behind each layer as a share of its dimensions.</p>"
)
EIGENVALUES = '<p class="note">Eigenvalues of the covariance behind a few layers, over the largest, by their share of the rank.</p>'
SIGMAS = (
    '<p class="note">The spectral norm of R = W W<sup>T</sup> &minus; I of each weight: its true value, by the eigenvalues '
    "of R in float64, and what SRIP estimates, the mean and the range over start vectors.</p>"
)


def findings(content: Mapping[str, Any]) -> list[str]:
    """What is seen, a sentence or two for each network and kind of input."""
    said = []
    for architecture, networks in by_architecture(content).items():
        first, *others = networks
        alone = _each(networks, lambda network: network.median(network.kinds[0], "if_white"))
        said.append(f"{architecture}, weights alone: behind a white input the median layer is {alone} from white.")
        for kind in first.kinds:
            medians = _each(networks, lambda network: network.median(kind, "distance"))  # noqa: B023
            text = f"{architecture}, {KINDS[kind]}: the median layer is {medians} from white."
            firsts = _each(networks, lambda network: network.values(kind, "distance")[0])  # noqa: B023
            lasts = _each(networks, lambda network: network.values(kind, "distance")[-1])  # noqa: B023
            text += f" Behind the first layer: {firsts}; behind the last: {lasts}."
            for other in others:
                text += f" {_nearer(first, other, kind)}"
            ranks = _each(networks, lambda network: network.representation(kind, "rank_share"), "{:.1%}")  # noqa: B023
            said.append(f"{text} Effective rank of the representation: {ranks} of its dimensions.")
        said += [_estimate(network) for network in networks]
    return said


def unmeasured(content: Mapping[str, Any]) -> list[str]:
    """A sentence for each network with layers that are left out."""
    return [
        f"{network.architecture}, {network.weights}: not measured are "
        + ", ".join(f"{layer} ({reason})" for layer, reason in network.content["not_measured"].items())
        + "."
        for networks in by_architecture(content).values()
        for network in networks
        if network.content["not_measured"]
    ]


def summary(content: Mapping[str, Any]) -> str:
    """The findings as a table for a terminal: the distance from white behind layers."""
    rows = [("network", "weights", "inputs", "if white", "first", "median", "last", "rank", "representation")]
    for networks in by_architecture(content).values():
        for network in networks:
            for kind in network.kinds:
                values = network.values(kind, "distance")
                figures = [network.median(kind, "if_white"), values[0], network.median(kind, "distance"), values[-1]]
                ranks = network.median(kind, "rank_share"), network.representation(kind, "rank_share")
                rows.append(
                    (
                        network.architecture,
                        network.weights,
                        kind,
                        *[f"{figure:.3f}" for figure in figures],
                        *[f"{100 * rank:.1f} %" for rank in ranks],
                    )
                )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([*map(str.ljust, row[:3], widths[:3]), *map(str.rjust, row[3:], widths[3:])]).rstrip() for row in rows
    ]
    notes = ["Distance from white behind layers (0: white), and effective ranks as shares of the dimensions.", *unmeasured(content)]
    return "\n".join([*lines, *notes])


def _lead(content: Mapping[str, Any]) -> str:
    [first, *_] = content["inputs"]
    shape = " x ".join(map(str, first["shape"]))
    text = f"{first['pictures']:,} pictures of {content['data']}, {shape}, through {len(content['networks'])} networks."
    if "whitened_by" in first:
        text += (
            f" Whitened by the covariance of {first['whitened_by']:,} of them, which vary in "
            f"{first['whitened_directions']:,} of {math.prod(first['shape']):,} directions."
        )
    return text


def _each(networks: Sequence[MeasuredNetwork], value: Callable[[MeasuredNetwork], float], form: str = "{:.2f}") -> str:
    """`0.90 (random), 0.05 (orthogonal)`."""
    return ", ".join(f"{form.format(value(network))} ({network.weights})" for network in networks)


def _nearer(first: MeasuredNetwork, other: MeasuredNetwork, kind: str) -> str:
    layers = first.layers(kind)
    nearer = sum(other.value(kind, layer, "distance") < first.value(kind, layer, "distance") for layer in layers)
    return f"{other.weights} is nearer to white than {first.weights} behind {nearer} of {len(layers)} layers."


def _estimate(network: MeasuredNetwork) -> str:
    shares = [row["srip_mean"] / row["sigma"] for row in network.residuals if row["sigma"] > 1e-6]
    largest = max((row["sigma"] for row in network.residuals), default=math.nan)
    text = f"{network.architecture}, {network.weights}: the largest true sigma of a weight is {largest:.3g}"
    if not shares:
        return f"{text}, and none is above rounding."
    return f"{text}. SRIP's estimate is {min(shares):.0%} to {max(shares):.0%} of the true one, by layer."


def _weights_table(networks: Sequence[MeasuredNetwork]) -> str:
    warm = any(row["srip_warm"] is not None for network in networks for row in network.residuals)
    head = "".join(
        f"<th>{html.escape(network.weights)}<br>SO / n</th><th>true &sigma;</th><th>SRIP (range)</th>"
        + "<th>SRIP, warm</th>" * warm
        for network in networks
    )
    tables = [{row["layer"]: row for row in network.residuals} for network in networks]
    body = ""
    for layer in dict.fromkeys(layer for table in tables for layer in table):
        cells = ""
        for table in tables:
            row = table.get(layer)
            if row is None:
                cells += "<td>&ndash;</td>" * (3 + warm)
                continue
            estimate = f"{row['srip_mean']:.3g} ({row['srip_least']:.3g}&ndash;{row['srip_most']:.3g})"
            cells += f"<td>{row['so_per_row']:.3g}</td><td>{row['sigma']:.3g}</td><td>{estimate}</td>"
            cells += f"<td>{_number(row['srip_warm'])}</td>" * warm
        body += f"<tr><th>{html.escape(_short(layer))}</th>{cells}</tr>"
    return f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _layers_table(networks: Sequence[MeasuredNetwork], kind: str) -> str:
    columns = {"arrives": "arriving_distance", "behind": "distance", "if white": "if_white", "law": "law_error"}
    head = "".join(
        f"<th>{html.escape(network.weights)}<br>{title}</th>" if index == 0 else f"<th>{title}</th>"
        for network in networks
        for index, title in enumerate(columns)
    )
    body = ""
    first = networks[0]
    for layer in first.layers(kind):
        values = [network.value(kind, layer, column) for network in networks for column in columns.values()]
        cells = "".join(f"<td>{_number(value)}</td>" for value in [first.value(kind, layer, "floor"), *values])
        body += f"<tr><th>{html.escape(_short(layer))}</th>{cells}</tr>"
    cells = "".join(
        f"<td></td><td>{_number(network.representation(kind, 'distance'))}</td><td></td><td></td>" for network in networks
    )
    floor = _number(first.representation(kind, "floor"))
    body += f"<tr><th>{REPRESENTATION}</th><td>{floor}</td>{cells}</tr>"
    return (
        f"<details><summary>{KINDS[kind]}: distances from white</summary>"
        f'<div class="wide"><table><thead><tr><th></th><th>chance</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        "</details>"
    )


def _facts(content: Mapping[str, Any]) -> str:
    facts = {**content["settings"], **content["machine"]}
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(str(value))}</td></tr>"
        for key, value in facts.items()
        if value not in (None, [], {})
    )
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _number(value: float | None) -> str:
    return "&ndash;" if value is None or not math.isfinite(value) else f"{value:.3g}"


def _short(layer: str) -> str:
    return layer.removeprefix("network.")


def _item(text: str) -> str:
    return f"<li>{html.escape(text)}</li>"


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{''.join(parts)}</section>"
