"""Object detection with trained encoders: Faster R-CNN on each, trained on VOC's pictures and scored by AP.

    python -m ortho_kernels.trainer.detect RUN [RUN ...] [random] root=FOLDER detector=c4

A RUN is a finished run's folder, a sweep's, one that holds runs, or a file that `export` has written. `random` adds each
run's network with the weights that it had before its training. FOLDER holds VOCdevkit. Each score becomes a file in
RUN/evaluations, or in FILE.evaluations; at the end there are a table and a page of all.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.command_words import runs_and_options
from .errors import TrainerError

if TYPE_CHECKING:
    from .detection.settings import DetectSettings

RANDOM = "random"  # among the words; a folder of that name is ./random


def main(words: Sequence[str]) -> None:
    from .detection.settings import DetectSettings

    given = runs_and_options([word for word in words if word != RANDOM], __doc__ or "", DetectSettings)
    if given is not None:
        detect(*given, random=RANDOM in words)


def detect(paths: Sequence[Path], settings: "DetectSettings", random: bool = False) -> list[dict[str, Any]]:
    """Trains and scores a detector for every encoder, writes the files and the page, and prints the table.

    Raises TrainerError, before anything is trained, for words that are wrong, for encoders that can't be read or have no
    stages, and for pictures that can't be read.
    """
