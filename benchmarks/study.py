"""The figures of a study: docs/NAME.csv, means over seeds and differences with their 95 % intervals, and docs/NAME.svg.

    python -m benchmarks.study study benchmarks/results/runs/COMMIT
    python -m benchmarks.study mae benchmarks/results/runs/COMMIT

The folder, named by the commit, is what `experiment=quick/study` or `quick/mae` has filled; docs/NAME.md has the command.
The table there is written by `python -m benchmarks.tables`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ortho_kernels.trainer.report.finished import read_finished
from ortho_kernels.trainer.report.groups import Group, groups_of
from ortho_kernels.trainer.report.measures import COMPARED, TRAINING, Measure
from ortho_kernels.trainer.report.plots.means import mean_curve, relative
from ortho_kernels.trainer.report.statistics import Statistic, contrasts_of, statistic

from .checkout import ROOT
from .drawing import BLUE, GRAY, ORANGE, RED, panels
from .results import write_csv

COLORS = {"none": GRAY, "so": RED, "srip": BLUE, "decay": ORANGE}
SCORES = {"study": COMPARED[:5], "mae": (TRAINING[2], *COMPARED[:5])}  # of each study, by its name


def rows_of(groups: Sequence[Group], scores: Sequence[Measure], commit: str) -> Iterator[dict[str, object]]:
    """One for each group, and one for each of its differences, with a column a score."""
    for group in groups:
        origin = origin_of(group, commit)
        means = {measure.short: _mean(measure, statistic(group, measure)) for measure in scores}
        yield {**_group(group, ""), **means, **origin}
        for contrast in contrasts_of(groups):
            if contrast.group is group:
                differences = {each.short: _difference(each, contrast.difference(each)) for each in scores}
                yield {**_group(group, contrast.role), **differences, **origin}


def in_order(groups: Sequence[Group]) -> list[Group]:
    """By method and penalty, in the order in which they were run, and from the weakest gamma up."""
    kinds = list(dict.fromkeys((_group(group, "")["method"], _group(group, "")["penalty"]) for group in groups))
    return sorted(
        groups, key=lambda g: (kinds.index((_group(g, "")["method"], _group(g, "")["penalty"])), g.gamma or 0)
    )


def origin_of(group: Group, commit: str) -> dict[str, str]:
    """Where and of which commit its runs were trained: the last columns of a row."""
    about = group.runs[0].results["machine"]
    return {"machine": f"{about['processor']}, {about['cores']} cores, torch {about['torch']}", "commit": commit}


def _group(group: Group, minus: str) -> dict[str, object]:
    """`minus` is what the row is a difference to."""
    return {
        "method": group.settings["method.name"],
        "penalty": "none" if group.is_baseline else group.settings["penalty.name"],
        "gamma": group.gamma,
        "seeds": len(group.runs),
        "minus": minus,
    }


def draw(path: Path, groups: Sequence[Group], commit: str) -> Path:
    """Eigenvalues of the features over the largest, a panel a method: means over seeds, at gammas that all methods have."""
    methods = list(dict.fromkeys(group.settings["method.name"] for group in groups))
    choices = Counter((_group(group, "")["penalty"], group.gamma) for group in groups)
    first = groups[0].runs[0].results
    caption = f"{first['settings']['data.name']}, {first['steps']} steps, {len(groups[0].runs)} seeds; commit {commit}"
    with panels(path, 1, len(methods), (4.4, 3.4), caption) as axes:
        for group in groups:
            penalty = str(_group(group, "")["penalty"])
            if choices[penalty, group.gamma] == len(methods):
                axis = axes[0][methods.index(group.settings["method.name"])]
                _, mean = mean_curve(
                    [(np.arange(len(r.representation)), relative(r.representation)) for r in group.runs]
                )
                axis.plot(range(1, len(mean) + 1), mean, label=penalty, color=COLORS[penalty], linewidth=1.3)
        for axis, method in zip(axes[0], methods, strict=True):
            axis.set_yscale("log")
            axis.set_title(method, fontsize=10)
            axis.set_xlabel("direction")
        axes[0][0].set_ylabel("eigenvalue / largest")
        axes[0][0].legend(frameon=False, fontsize=8)
    return path


def _difference(measure: Measure, found: Statistic | None) -> str:
    return measure.difference_text(None if found is None else found.interval)


def _mean(measure: Measure, found: Statistic | None) -> str:
    return "–" if found is None else f"{measure.write(found.interval.value)} {measure.half_width(found.interval)}"


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    groups = in_order(groups_of(read_finished([folder]).runs))
    print(write_csv(ROOT / "docs" / f"{name}.csv", list(rows_of(groups, SCORES[name], commit=folder.name))))
    print(draw(ROOT / "docs" / f"{name}.svg", groups, commit=folder.name))


if __name__ == "__main__":
    main()
