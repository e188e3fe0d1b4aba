"""The report of finished runs, made again at any time.

    python -m ortho_kernels.trainer.report RUN [RUN ...] [output=FILE]

RUN is a run's folder, a sweep's, or a folder of runs, of which all finished ones are taken.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import TrainerError, did_you_mean, writing


def main(words: Sequence[str] | None = None) -> None:
    options = _parser().parse_args([_as_flag(word) for word in (sys.argv[1:] if words is None else words)])
    print(f"Report: {report(options.runs, options.output)}")


def report(paths: Sequence[Path], output: Path | None = None) -> Path:
    """Writes the report of the finished runs among these, and prints its summary; returns its path.

    By default one run or sweep has it in its folder, several in a new folder beside them.
    """
    from .finished import read_finished  # here, since a mistyped word is answered at once
    from .lead import missing_sentence
    from .page import write_report
    from .text_summary import summary

    found = read_finished(paths)
    path = output.expanduser() if output else _default_output(paths, found.runs[0].folder)
    if path.is_dir():
        raise TrainerError(f"output={path}: that is a folder. Give the name of a file, such as {path / 'report.html'}.")
    with writing(path, then="make the report again, or give another file: output=FILE"):
        write_report(path, found.runs, found.missing)
    print("\n".join([summary(found.runs), *missing_sentence(found.missing)]))
    return path


def _default_output(paths: Sequence[Path], first: Path) -> Path:
    only = paths[0].expanduser() if len(paths) == 1 else None
    if only is not None and any((only / name).is_file() for name in ("config.yaml", "sweep.csv")):
        return only / "report.html"
    return first.parent / f"report-{time.strftime('%Y%m%d-%H%M%S')}" / "report.html"


def _as_flag(word: str) -> str:
    """Folders may have a `=` in their names, so a word is an option where it names none."""
    if word.startswith("output="):
        return f"--{word}"
    key, equals, _ = word.partition("=")
    if equals and "/" not in key and not word.startswith("-") and not Path(word).exists():
        raise TrainerError(f"There is no option {key}.{did_you_mean(key, ['output'])} --help lists them.")
    return word


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ortho_kernels.trainer.report", description="The report of finished runs, made again."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="runs, a sweep's folder, or a folder of runs")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="what is written; also output=FILE. RUN/report.html by default, and for several runs report-TIME/report.html "
        "beside them",
    )
    return parser


if __name__ == "__main__":
    main()
