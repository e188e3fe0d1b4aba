"""Brings the figures of `benchmarks/results` into README.md and docs/.

    python -m benchmarks.tables

Copies each CSV and drawing that is there to docs/, and writes the tables anew from the CSV files of docs/. A table stands
between `<!-- figures: NAME -->` and `<!-- end of figures -->`, and all its rows are of one machine and one commit.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .checkout import ROOT
from .results import FOLDER, write_csv

DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", DOCS / "benchmarks.md", DOCS / "study.md", DOCS / "mae.md", DOCS / "map.md")
FILES = ("penalties.csv", "penalties.svg", "cpu_roofline.csv", "cpu_roofline.svg", "notes.csv", "throughput.csv",
         "picture_pipeline.csv")  # fmt: skip
TITLES = {"so": "SO", "srip": "SRIP", "resnet18": "ResNet-18", "resnet50": "ResNet-50", "wrn28_2": "WRN-28-2",
          "vit_tiny": "ViT-Ti/16", "vit_small": "ViT-S/16", "vit_base": "ViT-B/16"}  # fmt: skip
SECTION = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
Rows = Sequence[dict[str, str]]


def speed(rows: Rows, models: Sequence[str] = ("resnet18", "resnet50", "vit_small")) -> list[str]:
    """Our median of forward and backward, and how many times as long a rival takes."""
    both = {(r["penalty"], r["model"], r["rival"]): r for r in rows if r["phase"] == "both" and r["model"] in models}
    lines = []
    for penalty, model, _ in [case for case in both if case[2] == "ours"]:
        times = [
            f"{float(both[penalty, model, name]['times_ours']):.1f}x" for name in ("published", "eager", "compiled")
        ]
        lines.append([TITLES[penalty], TITLES[model], _ms(both[penalty, model, "ours"]["median_ms"]), *times])
    return _table(["penalty", "model", "ours", "published loop", "eager torch", "`torch.compile`"], lines)


def penalties(rows: Rows) -> list[str]:
    """The speed of all models; then what else was counted there."""
    every = list(dict.fromkeys(row["model"] for row in rows))
    lines = [
        [TITLES[row["penalty"]], TITLES[row["model"]], row["rival"], row["launches"] or "–",
         f"{float(row['peak_extra_mib']):.0f} MiB", row["value_error"], row["gradient_error"]]
        for row in rows if row["phase"] == "both"
    ]  # fmt: skip
    head = ["penalty", "model", "", "operators", "memory at most", "error of the value", "error of the gradients"]
    drawing = "![Time of one forward and backward over all weights of a model](penalties.svg)"
    return [*speed(rows, every), "", *_table(head, lines), "", drawing]


def roofline(rows: Rows) -> list[str]:
    """Minima, a table for each number of threads."""
    lines = [
        [row["threads"], TITLES[row["penalty"]], TITLES[row["model"]], row["step"], _ms(row["min_ms"]),
         f"{float(row['times_ours']):.2f}x", f"{float(row['share_of_roofline']):.0%} of {row['bound']}"]
        for row in rows
    ]  # fmt: skip
    head = ["threads", "penalty", "model", "", "shortest", "times ours", "share of the roofline"]
    return [*_table(head, lines), "", "![Steps below the roofline](cpu_roofline.svg)"]


def notes(rows: Rows) -> list[str]:
    return [f"- {row['note']}" for row in rows]


def throughput(rows: Rows) -> list[str]:
    shares = [f"{float(row['penalty_share']):.2%}" if float(row["penalty_share"]) else "–" for row in rows]
    lines = [[row["trainer"], row["images_per_second"], share] for row, share in zip(rows, shares, strict=True)]
    return _table(["", "images/s", "the penalty's share of a step"], lines)


def pictures(rows: Rows) -> list[str]:
    lines = []
    for row in rows:
        ratios = [f"{float(row[key]):.2f}x" for key in ("ratio", "processor_ratio")]
        lines.append([row["views"], row["ours"], row["torchvision"], *ratios])
    return _table(["", "ours, pictures/s", "torchvision", "ratio", "of the processors' time"], lines)


def pretraining(rows: Rows) -> list[str]:
    shares = {
        "raw_pixels_knn": "kNN on raw pixels",
        "knn": "kNN on frozen features",
        "linear_probe": "linear probe on frozen features",
        "penalty_share": "the penalty's share of a step",
    }
    lines = [[title, *[f"{100 * float(row[key]):.2f} %" for row in rows]] for key, title in shares.items()]
    ranks = [f"{float(row['representation_effective_rank']):.1f}" for row in rows]
    return _table(["", *[row["label"] for row in rows]], [*lines, ["effective rank of the features", *ranks]])


def study(rows: Rows) -> list[str]:
    """A line for each group, and below it its differences to the baseline and to the control."""
    scores = [
        key for key in rows[0] if key not in ("method", "penalty", "gamma", "seeds", "minus", "machine", "commit")
    ]
    lines = [
        [*([f"minus {row['minus']}", ""] if row["minus"] else [f"{row['method']}, {row['penalty']}", row["gamma"]]),
         *(row[key] for key in scores)]
        for row in rows
    ]  # fmt: skip
    return _table(["", "gamma", *scores], lines)


def gamma_map(rows: Rows) -> list[str]:
    """A line for each score and cell."""
    head = ["", "recommended", "shown", "minus gamma 0", "minus the best decay", "minus the best weight decay",
            "on other seeds"]  # fmt: skip
    lines = [
        [f"{row['score']}: {row['cell']}", row["recommended"], row["shown"], row["gain"], row["over_decay"],
         row["over_weight_decay"], row["on_other_seeds"]]
        for row in rows
    ]  # fmt: skip
    return _table(head, lines)


# By the name of the section: the CSV, and what makes lines of its rows.
SECTIONS: dict[str, tuple[str, Callable[[Rows], list[str]]]] = {
    "speed": ("penalties.csv", speed),
    "penalties": ("penalties.csv", penalties),
    "roofline": ("cpu_roofline.csv", roofline),
    "notes": ("notes.csv", notes),
    "throughput": ("throughput.csv", throughput),
    "pictures": ("picture_pipeline.csv", pictures),
    "pretraining": ("pretraining.csv", pretraining),
    "study": ("study.csv", study),
    "mae": ("mae.csv", study),
    "map": ("map.csv", gamma_map),
}


def fill(text: str) -> str:
    """The page with its tables written anew."""
    return SECTION.sub(lambda found: f"{found[1]}{_section(found[2])}{found[3]}", text)


def _section(name: str) -> str:
    path, tabulate = DOCS / SECTIONS[name][0], SECTIONS[name][1]
    if not path.exists():
        return "Not measured yet: `make figures`.\n"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    origins = {f"{row['machine']}; commit {row['commit']}." for row in rows}
    if len(origins) > 1:
        raise ValueError(f"{path.name} has rows of several machines or commits: {' '.join(sorted(origins))}")
    return "\n".join([*tabulate(rows), "", *origins, ""])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def _ms(milliseconds: str) -> str:
    return f"{float(milliseconds):.{0 if float(milliseconds) >= 100 else 1}f} ms"


def collect_runs(folder: Path) -> list[dict[str, str]]:
    """A row for each run of the newest commit; each commit's runs lie in a folder of its name."""
    paths = sorted(folder.glob("*/*/results.json"), key=lambda path: path.parent.name)
    measured = paths[-1].parents[1].name if paths else ""
    kept = ("label", "raw_pixels_knn", "knn", "linear_probe", "representation_effective_rank", "penalty_share")
    rows = {}
    for path in [path for path in paths if path.parents[1].name == measured]:
        results = json.loads(path.read_text())
        about = results["machine"]
        machine = f"{about['processor']}, {about['cores']} cores, {about['threads']} threads, torch {about['torch']}"
        rows[results["label"]] = {**{key: results[key] for key in kept}, "machine": machine, "commit": measured}
    return list(rows.values())


def main() -> None:
    for name in FILES:
        if (FOLDER / name).exists():
            shutil.copyfile(FOLDER / name, DOCS / name)
    if rows := collect_runs(FOLDER / "runs"):
        write_csv(DOCS / "pretraining.csv", rows)
    for page in PAGES:
        page.write_text(fill(page.read_text()))


if __name__ == "__main__":
    main()
