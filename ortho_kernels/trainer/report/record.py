"""What a run leaves in its folder, read back for reports and comparisons."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .evaluated import read_evaluations
from .metrics_file import read_metrics


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
    spectra: dict[str, Any] = field(default_factory=dict)  # all of spectra.json; what was measured later goes over it

    @property
    def label(self) -> str:
        return self.results["label"]

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        evaluated = read_evaluations(folder / "evaluations")
        spectra = json.loads((folder / "spectra.json").read_text()) | evaluated.pop("spectra", {})
        return cls(
            folder=folder,
            results=json.loads((folder / "results.json").read_text()),
            metrics=_columns(folder / "metrics.csv"),
            weights=spectra["weights"],
            representation=spectra["representation"],
            configuration=(folder / "config.yaml").read_text(),
            evaluations=_columns(folder / "evaluations.csv"),
            evaluated=evaluated,
            spectra=spectra,
        )


def _columns(path: Path) -> dict[str, list[float]]:
    """Those of a metrics file; none where there is no file or no row."""
    rows = read_metrics(path) if path.exists() else []
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
