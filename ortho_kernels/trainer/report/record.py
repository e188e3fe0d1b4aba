"""What a run leaves in its folder, read back for reports and comparisons."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..errors import TrainerError
from .evaluated import read_evaluations
from .metrics_file import read_metrics

# What every results.json and spectra.json hold.
RESULTS = {"label": str, "settings": dict, "machine": dict, "steps": int, "train_size": int}
SPECTRA = {"weights": dict, "representation": list}
SHARES = ("knn", "linear_probe", "raw_pixels_knn", "chance")


@dataclass(frozen=True)
class RunRecord:
    folder: Path
    results: dict[str, Any]
    metrics: dict[str, list[float]]  # columns of metrics.csv
    weights: dict[str, list[float]]  # singular values by layer
    representation: list[float]  # covariance eigenvalues
    configuration: str  # YAML
    evaluations: dict[str, list[float]] = field(default_factory=dict)  # columns of evaluations.csv, if there is one
    evaluated: dict[str, dict[str, Any]] = field(default_factory=dict)  # later evaluations, by the names of their files
    illustration: bytes = b""  # a PNG, of methods that draw
    spectra: dict[str, Any] = field(default_factory=dict)  # all of spectra.json; what was measured later goes over it

    @property
    def label(self) -> str:
        return self.results["label"]

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Raises TrainerError for a file that is missing or holds something else, by its name."""
        results = _content(folder / "results.json", RESULTS)
        if wrong := [key for key in SHARES if not _is_share(results.get(key))]:
            raise TrainerError(
                f"{folder / 'results.json'}: {wrong[0]}={results[wrong[0]]} is no share between 0 and 1."
            )
        evaluated = read_evaluations(folder / "evaluations")
        spectra = _content(folder / "spectra.json", SPECTRA) | evaluated.pop("spectra", {})
        return cls(
            folder=folder,
            results=results,
            metrics=_columns(folder / "metrics.csv"),
            weights=spectra["weights"],
            representation=spectra["representation"],
            configuration=_text(folder / "config.yaml"),
            evaluations=_columns(folder / "evaluations.csv"),
            evaluated=evaluated,
            illustration=_picture(folder / "illustration.png"),
            spectra=spectra,
        )


def _content(path: Path, types: Mapping[str, type]) -> dict[str, Any]:
    """Of a JSON file that holds these keys."""
    try:
        content = json.loads(_text(path))
    except ValueError:
        raise TrainerError(f"{path} is no whole JSON file.") from None
    wrong = [
        key for key, kind in types.items() if not (isinstance(content, dict) and isinstance(content.get(key), kind))
    ]
    if wrong:
        raise TrainerError(f"{path} has no {wrong[0]}, or it is of another kind: a run did not write this file.")
    return cast(dict[str, Any], content)


def _picture(path: Path) -> bytes:
    """Nothing where there is none."""
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise TrainerError(f"{path} cannot be read: {error.strerror or error}.") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainerError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise TrainerError(f"{path} cannot be read: it is no text in UTF-8.") from None


def _is_share(value: Any) -> bool:
    """A number that is missing or NaN passes, since reports show it as such."""
    return value is None or (isinstance(value, int | float) and not (value < 0 or value > 1))


def _columns(path: Path) -> dict[str, list[float]]:
    """Those of a metrics file; none where there is no file or no row."""
    rows = read_metrics(path) if path.exists() else []
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
