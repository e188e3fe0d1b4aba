"""`python -m ortho_kernels.trainer.compare key=value ...`: a baseline and a regularized run, and one report of both.

The two differ in gamma alone: the same initial weights, the same order of images, the same views.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .command import help_text, wants_help
from .errors import TrainerError


def main(words: Sequence[str]) -> None:
    if wants_help(words):
        print(help_text(words))
        return
    print(f"Report: {compare(words)}", flush=True)


def compare(words: Sequence[str]) -> Path:
    from ortho_kernels.diagnostics.record import RunRecord
    from ortho_kernels.diagnostics.report import write_report

    from .config import fingerprint, load_config
    from .pretrain import pretrain

    config = load_config(words)
    if config.penalty.gamma == 0:
        raise TrainerError("A comparison needs a penalty: give penalty=so or penalty=srip, and penalty.gamma above 0.")
    baseline = load_config([*words, "penalty.gamma=0"])
    folders = [pretrain(baseline), pretrain(config)]
    report = Path(config.runs) / f"compare-{time.strftime('%Y%m%d-%H%M%S')}-{fingerprint(config)}" / "report.html"
    write_report(report, [RunRecord.read(folder) for folder in folders])
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
