"""The figures of a map: docs/map.csv, what is recommended in each cell with its evidence, and docs/map.svg.

    python -m benchmarks.gamma_map benchmarks/results/runs/COMMIT

The folder, named by the commit, is what `experiment=quick/map` has filled; docs/map.md has the command. The table there is
written by `python -m benchmarks.tables`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from ortho_kernels.trainer.config import flattened, identity, load_config
from ortho_kernels.trainer.report.finished import read_finished
from ortho_kernels.trainer.report.groups import Failure, Group, groups_of, with_failures
from ortho_kernels.trainer.report.intervals import Interval
from ortho_kernels.trainer.report.map_cells import cells_of
from ortho_kernels.trainer.report.measures import Measure
from ortho_kernels.trainer.report.plots.cell_panels import cell_panel
from ortho_kernels.trainer.report.plots.panels import LARGE
from ortho_kernels.trainer.report.plots.standalone import standalone
from ortho_kernels.trainer.report.recommended_gamma import JUDGES, Recommendation, judged_by, recommendations

from .checkout import ROOT
from .results import write_csv
from .study import origin_of

SCORES = ("knn", "rankme")


def rows_of(groups: Sequence[Group], commit: str) -> Iterator[dict[str, object]]:
    """One for each score, cell and penalty."""
    origin = origin_of(groups[0], commit)
    for score in SCORES:
        for one in recommendations(groups, score):
            yield {**_evidence(one, JUDGES[score]), **origin}


def draw(groups: Sequence[Group], commit: str) -> str:
    """A row of panels for each score, a panel for each cell."""
    cells = cells_of(groups)
    rows = []
    for score in SCORES:
        measure = JUDGES[score]
        panels = [cell_panel(judged_by(cell, measure), measure) for cell in cells]
        rows.append((measure.title, [panel for panel in panels if panel is not None]))
    first = groups[0].runs[0].results
    note = f"{first['settings']['data.name']}, {first['steps']} steps, {len(groups[0].runs)} seeds; commit {commit}"
    return standalone(rows, LARGE, [], note)


def _evidence(one: Recommendation, measure: Measure) -> dict[str, object]:
    gains = [other.gain for other in one.other_seeds]
    elsewhere = Interval(sum(gains) / len(gains), min(gains), max(gains)) if gains else None
    return {
        "score": measure.short,
        "cell": f"{one.cell.name}, {one.penalty.name}",
        "recommended": one.value or "none",
        "shown": one.shown_value,
        "gain": measure.difference_text(one.gain),
        "over_decay": measure.difference_text(_over(one, "decay")),
        "over_weight_decay": measure.difference_text(_over(one, "weight decay")),
        "on_other_seeds": measure.difference_text(elsewhere),
    }


def failures_in(folder: Path) -> Iterator[Failure]:
    """The runs that the map names as failed."""
    [known] = folder.glob("map-*/map.json")
    cells = json.loads(known.read_text())["cells"]
    stopped = {run["title"]: run["error"] for runs in cells.values() for run in runs if run["error"]}
    for file in folder.glob("*/config.yaml"):
        title = OmegaConf.load(file).title
        if title in stopped:  # once, however often it was tried
            yield Failure(flattened(identity(load_config([f"config={file}"]))), stopped.pop(title))


def _cell(group: Group) -> tuple[str, str]:
    return group.settings["method.name"], group.settings["backbone.name"]


def _over(one: Recommendation, kind: str) -> Interval | None:
    return one.over_controls[kind][1] if kind in one.over_controls else None


def main() -> None:
    [folder] = map(Path, sys.argv[1:])
    groups = sorted(with_failures(groups_of(read_finished([folder]).runs), list(failures_in(folder))), key=_cell)
    print(write_csv(ROOT / "docs" / "map.csv", list(rows_of(groups, commit=folder.name))))
    drawing = ROOT / "docs" / "map.svg"
    drawing.write_text(draw(groups, commit=folder.name))
    print(drawing)


if __name__ == "__main__":
    main()
