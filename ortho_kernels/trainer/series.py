"""Several runs, one after the other, and one report of all of them."""

import time
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from ortho_kernels.diagnostics.record import RunRecord
from ortho_kernels.diagnostics.report import summary, write_report

from .config import fingerprint
from .errors import writing
from .pretrain import pretrain


def pretrain_all(configs: Sequence[DictConfig]) -> Path:
    """Returns the report's path; with `resume=auto`, runs that are finished already are taken as they are."""
    folders = [pretrain(config) for config in configs]
    name = f"compare-{time.strftime('%Y%m%d-%H%M%S')}-{fingerprint(configs[-1])}"
    report = Path(configs[-1].runs).expanduser() / name / "report.html"
    runs = [RunRecord.read(folder) for folder in folders]
    with writing(report):
        write_report(report, runs)
    print(f"\n{summary(runs)}\n")
    return report
