"""What `propagation.json` holds, with what its tables and figures read from it."""

import csv
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KINDS = {"noise": "Gaussian noise", "whitened": "whitened pictures", "real": "real pictures"}
# Column of the table, and where a layer's measurement has it.
COLUMNS: dict[str, tuple[str, ...]] = {
    "distance": ("output", "distance"),
    "if_white": ("if_white",),
    "arriving_distance": ("arriving", "distance"),
    "patch_distance": ("patches",),
    "law_error": ("law",),
    "rank_share": ("output", "rank_share"),
    "first_share": ("output", "first_share"),
    "floor": ("output", "floor"),
    "samples": ("output", "samples"),
    "dimensions": ("output", "dimensions"),
    "arriving_rank_share": ("arriving", "rank_share"),
    "arriving_first_share": ("arriving", "first_share"),
    "arriving_dimensions": ("arriving", "dimensions"),
}
OF_WEIGHTS = ("so_per_row", "sigma", "srip_mean", "srip_least", "srip_most", "srip_warm")
REPRESENTATION = "representation"  # the row of what the network puts out


@dataclass(frozen=True)
class MeasuredNetwork:
    """One network of the file."""

    content: Mapping[str, Any]

    @property
    def architecture(self) -> str:
        return self.content["architecture"]

    @property
    def weights(self) -> str:
        return self.content["weights"]

    @property
    def kinds(self) -> list[str]:
        return list(self.content["measurements"])

    def layers(self, kind: str) -> list[str]:
        return [layer["layer"] for layer in self.content["measurements"][kind]["layers"]]

    def values(self, kind: str, column: str) -> list[float]:
        """One for each layer; NaN where there is none."""
        layers = self.content["measurements"][kind]["layers"]
        return [math.nan if (value := _at(layer, COLUMNS[column])) is None else value for layer in layers]

    def value(self, kind: str, layer: str, column: str) -> float:
        """NaN for a layer that this network does not have."""
        found = dict(zip(self.layers(kind), self.values(kind, column), strict=True))
        return found.get(layer, math.nan)

    def median(self, kind: str, column: str) -> float:
        finite = [value for value in self.values(kind, column) if math.isfinite(value)]
        return statistics.median(finite) if finite else math.nan

    def eigenvalues(self, kind: str, layer: str) -> list[float]:
        measured = self.content["measurements"][kind]
        if layer == REPRESENTATION:
            return _numbers(measured[REPRESENTATION]["eigenvalues"])
        found = next((each for each in measured["layers"] if each["layer"] == layer), None)
        return _numbers(found["output"]["eigenvalues"]) if found else []

    def representation(self, kind: str, column: str) -> float:
        value = self.content["measurements"][kind][REPRESENTATION][column]
        return math.nan if value is None else value

    @property
    def residuals(self) -> list[dict[str, Any]]:
        """A row for each weight, by OF_WEIGHTS and `layer`."""
        return [
            {
                "layer": each["layer"].removesuffix(".weight"),
                "so_per_row": each["so_per_row"],
                "sigma": each["sigma"],
                "srip_mean": statistics.fmean(each["estimates"]),
                "srip_least": min(each["estimates"]),
                "srip_most": max(each["estimates"]),
                "srip_warm": each["warm"],
            }
            for each in self.content["residuals"]
        ]


def by_architecture(content: Mapping[str, Any]) -> dict[str, list[MeasuredNetwork]]:
    """The networks that one figure can show together."""
    groups: dict[str, list[MeasuredNetwork]] = {}
    for network in map(MeasuredNetwork, content["networks"]):
        groups.setdefault(network.architecture, []).append(network)
    return groups


def as_csv(content: Mapping[str, Any]) -> str:
    """A row for each network, kind of input and layer, the weight's own numbers beside it; then the representation."""
    file = io.StringIO()
    names = ["network", "weights", "inputs", "layer", *COLUMNS, *OF_WEIGHTS]
    writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
    writer.writeheader()
    for networks in by_architecture(content).values():
        for network in networks:
            writer.writerows(_rows(network))
    return file.getvalue()


def _rows(network: MeasuredNetwork) -> Iterator[dict[str, Any]]:
    residuals = {row["layer"]: row for row in network.residuals}
    for kind, measured in network.content["measurements"].items():
        first = {"network": network.architecture, "weights": network.weights, "inputs": kind}
        for layer in measured["layers"]:
            values = {name: _written(_at(layer, place)) for name, place in COLUMNS.items()}
            own = {name: _written(residuals.get(layer["layer"], {}).get(name)) for name in OF_WEIGHTS}
            yield first | {"layer": layer["layer"]} | values | own
        whole = {"output": measured[REPRESENTATION]}
        values = {name: _written(_at(whole, place)) for name, place in COLUMNS.items() if place[0] == "output"}
        yield first | {"layer": REPRESENTATION} | values


def _at(content: Any, place: Sequence[str]) -> Any:
    for key in place:
        content = content[key]
    return content


def _written(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
