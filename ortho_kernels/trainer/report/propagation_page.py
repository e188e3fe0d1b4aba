"""The page of a propagation: what is seen, in numbers, and the figures and tables behind it."""

import html
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .plots import propagation as plots
from .propagation_record import KINDS, REPRESENTATION, MeasuredNetwork, by_architecture
from .style import PAGE, STYLE, details, section
from .text_summary import aligned

READING = """<p class="note">The distance from white of features with a covariance C is
|C / m &minus; I|<sub>F</sub> / &radic;d, where m is the mean of the diagonal and d the number of features. It is the spread
of the eigenvalues over their mean: 0 for white features, &radic;(d &minus; 1) where one direction is left. Samples are
positions of pictures. So many samples of white features have the distance &radic;(d / samples) by chance.</p>
<p class="note">Proposition 1: with W W<sup>T</sup> = I and a white input, the output is white. In general its covariance is
W S W<sup>T</sup>, where S is the covariance of the patches that reach the layer. <i>If white</i> is the distance of
W W<sup>T</sup>, what the weight alone does; a layer with more outputs than inputs is never white. <i>Law</i> is the relative
error of W S W<sup>T</sup> against the covariance measured.</p>"""
PROFILES = (
    '<p class="note">The distance from white of what arrives at each layer, after norm, activation and shortcut, and of '
    "what is behind it. Dotted: behind it if what arrives were white. Last, the effective rank behind each layer. "
    "Each kind of layer has a line.</p>"
)
EIGENVALUES = '<p class="note">Eigenvalues of the covariance behind a few layers, over the largest.</p>'
SIGMAS = (
    '<p class="note">The spectral norm of R = W W<sup>T</sup> &minus; I of each weight: its true value, by the eigenvalues '
    "of R in float64, and what SRIP estimates, the mean and the range over start vectors.</p>"
)
SCROLLED = '<div class="wide" tabindex="0">'  # so that keys scroll it too
ROUNDING = 1e-5  # of float32; what is below is shown as 0


def render(content: Mapping[str, Any]) -> str:
    groups = by_architecture(content)
    sections = [
        section(
            "What is seen", _findings_table(content), f"<ul>{''.join(map(_item, findings(content)))}</ul>", READING
        ),
    ]
    for architecture, networks in groups.items():
        sections += [
            section(f"{architecture}: covariance of features, layer by layer", plots.covariances(networks), PROFILES),
            section(f"{architecture}: eigenvalues", plots.eigenvalues(networks), EIGENVALUES),
            section(f"{architecture}: weights", plots.sigmas(networks), SIGMAS, _weights_table(networks)),
            section(f"{architecture}: layers", *[_layers_table(networks, kind) for kind in networks[0].kinds]),
        ]
    sections.append(section("How it was measured", _facts(content)))
    return PAGE.format(
        head="",
        title=html.escape(f"From weights to features: {' and '.join(groups)}"),
        style=STYLE,
        lead=html.escape(_lead(content)),
        alarms="".join(f'<p class="alarm">{html.escape(text)}</p>' for text in unmeasured(content)),
        sections="\n".join(sections),
    )


def findings(content: Mapping[str, Any]) -> list[str]:
    """What is seen, in sentences: each network against the first of its architecture, and SRIP's estimates."""
    said = []
    for architecture, networks in by_architecture(content).items():
        first, *others = networks
        for other in others:
            for kind in first.kinds:
                said.append(f"{architecture}, {KINDS[kind]}: {_compared(first, other, kind)}")
        said += [f"{architecture}, {network.weights}: {_estimates(network)}" for network in networks]
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


HEAD = ("network", "weights", "inputs", "if white", "first", "median", "last", "rank", "representation")


def summary(content: Mapping[str, Any]) -> str:
    """The findings as a table for a terminal."""
    lines = [line.rstrip() for line in aligned([HEAD, *_findings_rows(content)], left=3)]
    return "\n".join([*lines, TABLE, *unmeasured(content)])


TABLE = (
    "Distances from white (0: white) behind the first, the median and the last layer, and behind the median layer if its "
    "input were white. Effective ranks, as shares of the dimensions, behind the median layer and of the representation."
)


def _findings_rows(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for networks in by_architecture(content).values():
        for network in networks:
            for kind in network.kinds:
                values = network.values(kind, "distance")
                distances = [network.median(kind, "if_white"), values[0], network.median(kind, "distance"), values[-1]]
                ranks = [network.median(kind, "rank_share"), network.representation(kind, "rank_share")]
                rows.append(
                    (
                        network.architecture,
                        network.weights,
                        kind,
                        *[f"{distance:.3f}" for distance in distances],
                        *[f"{100 * rank:.1f} %" for rank in ranks],
                    )
                )
    return rows


def _findings_table(content: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{title}</th>" for title in (HEAD[0], *HEAD[2:]))  # network and weights are one column
    body = "".join(
        f"<tr><th>{html.escape(f'{network}, {weights}')}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for network, weights, *cells in _findings_rows(content)
    )
    table = f"{SCROLLED}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    return f'{table}<p class="note">{TABLE}</p>'


def _lead(content: Mapping[str, Any]) -> str:
    [first, *_] = content["inputs"]
    shape = " x ".join(map(str, first["shape"]))
    text = f"{first['pictures']:,} pictures of {content['data']}, {shape}, through {len(content['networks'])} networks."
    if "whitened_by" in first:
        text += (
            f" What whitens is the covariance of {first['whitened_by']:,} pictures, which vary in "
            f"{first['whitened_directions']:,} of {math.prod(first['shape']):,} directions."
        )
    return text


def _compared(first: MeasuredNetwork, other: MeasuredNetwork, kind: str) -> str:
    layers = first.layers(kind)
    nearer = sum(other.value(kind, layer, "distance") < first.value(kind, layer, "distance") for layer in layers)
    measured, alone = (_median_ratio(first, other, kind, column) for column in ("distance", "if_white"))
    return (
        f"{other.weights} is nearer to white than {first.weights} behind {nearer} of {len(layers)} layers. Its distance is "
        f"{measured:.2f} of the other in the median; if what arrives were white, it would be {alone:.2f} of it."
    )


def _median_ratio(first: MeasuredNetwork, other: MeasuredNetwork, kind: str, column: str) -> float:
    """Over the layers."""
    values = zip(first.layers(kind), first.values(kind, column), strict=True)
    ratios = [other.value(kind, layer, column) / value for layer, value in values if value > 0]
    finite = [ratio for ratio in ratios if math.isfinite(ratio)]
    return statistics.median(finite) if finite else math.nan


def _estimates(network: MeasuredNetwork) -> str:
    shares = [row["srip_mean"] / row["sigma"] for row in network.residuals if row["sigma"] > ROUNDING]
    largest = max((row["sigma"] for row in network.residuals), default=math.nan)
    if not shares:
        return f"the true sigma of every weight is below {ROUNDING:g}: orthogonal to rounding."
    return (
        f"the largest true sigma of a weight is {largest:.3g}; SRIP's estimate is {100 * min(shares):.0f} to "
        f"{100 * max(shares):.0f} % of the true one, by layer."
    )


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
            estimate = f"{_number(row['srip_mean'])} ({_number(row['srip_least'])}&ndash;{_number(row['srip_most'])})"
            cells += f"<td>{_number(row['so_per_row'])}</td><td>{_number(row['sigma'])}</td><td>{estimate}</td>"
            cells += f"<td>{_number(row['srip_warm'])}</td>" * warm
        body += f"<tr><th>{html.escape(_short(layer))}</th>{cells}</tr>"
    return f"{SCROLLED}<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"


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
        f"<td></td><td>{_number(network.representation(kind, 'distance'))}</td><td></td><td></td>"
        for network in networks
    )
    floor = _number(first.representation(kind, "floor"))
    body += f"<tr><th>{REPRESENTATION}</th><td>{floor}</td>{cells}</tr>"
    top = f"<thead><tr><th></th><th>chance</th>{head}</tr></thead>"
    return details(f"{KINDS[kind]}: distances from white", f"{SCROLLED}<table>{top}<tbody>{body}</tbody></table></div>")


def _facts(content: Mapping[str, Any]) -> str:
    facts = {**content["settings"], **content["machine"]}
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(_fact(value))}</td></tr>"
        for key, value in facts.items()
        if value not in (None, [], {})
    )
    return f"{SCROLLED}<table><tbody>{rows}</tbody></table></div>"


def _fact(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "&ndash;"
    return "0" if abs(value) < ROUNDING else f"{value:.3g}"


def _short(layer: str) -> str:
    return layer.removeprefix("network.")


def _item(text: str) -> str:
    return f"<li>{html.escape(text)}</li>"
