"""The figures of a day on a GPU, as a table for people: `python benchmarks/gpu_day_figures.py FOLDER --csv docs/gpu.csv`.

Reads the folder's `results.jsonl` and adds its figures to the CSV, each with the card, the date, the commit and versions.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.arguments import output_file
from benchmarks.gpu.json_lines import read

COLUMNS = ("card", "date", "commit", "torch", "triton", "driver", "stage", "case", "value", "unit")
UNITS = {"_us": "us", "_ms": "ms", "_mib": "MiB", "_gib": "GiB"}
COUNTED = ("launches", "rounds")  # figures without a unit in their names
_CASE = ("penalty", "model", "dtype")


def figures(finding: dict) -> Iterator[tuple[str, float, str]]:
    """A finding's figures as (case, value, unit). Findings are one figure each, or a case of `penalties.py` with many."""
    if isinstance(finding.get("value"), (int, float)) and "case" in finding:
        yield finding["case"], finding["value"], finding.get("unit", "")
    case = " ".join(str(finding[name]) for name in _CASE if name in finding)
    for name, measured in (finding.get("contestants") or {}).items():
        for path, value in _numbers(measured):
            unit = next((unit for suffix, unit in UNITS.items() if any(word.endswith(suffix) for word in path)), "")
            words = [word.removesuffix(suffix) for word in path for suffix in UNITS if word.endswith(suffix)]
            words = words or [word for word in path if word in COUNTED]
            if words and path[-1] != "min" and "rounds" not in path:
                yield f"{case} {name} {' '.join(words)}", value, unit


def _numbers(measured: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(measured, dict):
        for name, value in measured.items():
            yield from _numbers(value, (*path, name))
    elif isinstance(measured, (int, float)) and not isinstance(measured, bool):
        yield path, measured


def facts(findings: Iterable[dict]) -> dict[str, str]:
    """The card, the date, the commit and the versions, of all findings together."""
    known: dict[str, str] = {}
    for finding in findings:
        known |= finding.get("facts", {})
    return known


def rows(findings: Sequence[dict]) -> list[list[str]]:
    """The CSV's rows."""
    known = facts(findings)
    about = [known.get(name, "") for name in COLUMNS[:6]]
    return [
        [*about, finding["stage"], case, f"{value:.6g}", unit]
        for finding in findings
        if "stage" in finding
        for case, value, unit in figures(finding)
    ]


def table(text: str) -> Path:
    """A CSV of these columns, or a new one. argparse prints why another is refused."""
    path = output_file(text)
    with contextlib.suppress(FileNotFoundError):
        header = path.read_text(errors="replace").partition("\n")[0]
        if header and header != ",".join(COLUMNS):
            raise argparse.ArgumentTypeError(
                f"{text!r} has other columns: {header[:80]!r}; give one of these, or a new file"
            )
    return path


def append(findings: Sequence[dict], path: Path) -> int:
    """Adds the figures to a CSV, which begins with the names of its columns; returns how many there were."""
    found = rows(findings)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not before.endswith("\n"):  # as an editor may leave it
            file.write("\n" * bool(before))
        if not before:
            writer.writerow(COLUMNS)
        writer.writerows(found)
    return len(found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_day_figures.py", description=__doc__)
    parser.add_argument("folder", type=Path, help="where gpu_day.py wrote results.jsonl")
    parser.add_argument("--csv", type=table, default="docs/gpu.csv")
    options = parser.parse_args(arguments)
    results = options.folder / "results.jsonl"
    if not results.exists():
        print(f"There is no {results}: give the folder that gpu_day.py wrote to (its --out).", file=sys.stderr)
        return 1
    print(f"{append(list(read(results)), options.csv)} figures added to {options.csv}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
