"""`python -m ortho_kernels.trainer.compare key=value ...`: a baseline and a regularized run, and one report of both.

The two differ in gamma alone: the same initial weights, the same order of images, the same views.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .command import with_flags
from .errors import TrainerError, writing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(words: Sequence[str]) -> None:
    with_flags(words, _compare_words)


def _compare_words(words: Sequence[str], multirun: bool) -> None:
    from .config import load_config
    from .distributed.joining import require_alone

    require_alone("A comparison")
    if multirun:
        raise TrainerError(
            "A comparison compares two runs and takes no -m. For more runs: python -m ortho_kernels.trainer -m ..."
        )
    config = load_config(words)
    if config.penalty.gamma == 0:
        raise TrainerError("A comparison needs a penalty: give penalty=so or penalty=srip, and penalty.gamma above 0.")
    baseline = load_config([*words, "penalty.gamma=0", "title=null"])
    print(f"Report of both: {compare(baseline, config)}")


def compare(baseline: "DictConfig", regularized: "DictConfig") -> Path:
    """Returns the report's path; with `resume=auto`, runs that are finished already are taken as they are."""
    from .config import fingerprint
    from .report.page import write_report
    from .report.record import RunRecord
    from .report.text_summary import summary
    from .runs.pretrain import pretrain

    runs = [RunRecord.read(pretrain(config)) for config in (baseline, regularized)]
    name = f"compare-{time.strftime('%Y%m%d-%H%M%S')}-{fingerprint(regularized)}"
    report = Path(regularized.runs).expanduser() / name / "report.html"
    with writing(report):
        write_report(report, runs)
    print(f"\n{summary(runs)}\n")
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
