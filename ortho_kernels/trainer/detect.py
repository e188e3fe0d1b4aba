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
from .errors import TrainerError, writing

if TYPE_CHECKING:
    from .detection.settings import DetectSettings


def main(words: Sequence[str]) -> None:
    from .detection.settings import RANDOM, DetectSettings

    given = runs_and_options([word for word in words if word != RANDOM], __doc__ or "", DetectSettings)
    if given is not None:
        detect(*given, random=RANDOM in words)


def detect(paths: Sequence[Path], settings: "DetectSettings", random: bool = False) -> list[dict[str, Any]]:
    """Trains and scores a detector for every encoder, writes the files and the page, and prints the table.

    Raises TrainerError, before anything is trained, for words that are wrong, for pictures that can't be read or scored,
    for encoders that can't be read or have no stages, and for folders that can't be written.
    """
    page = Path(settings.output).expanduser()
    if page.is_dir():
        raise TrainerError(f"output={page} is a folder: give the page to write, such as {page / 'detection.html'}.")
    import torch

    from .report.detected import detection_lines
    from .report.detection_page import write_detection_page
    from .runs.detection_files import examples, shown
    from .runs.detections import detect_with, read_pictures, require_stages, require_writable, with_random_weights
    from .runs.exams import find_device
    from .runs.many_exams import encoder_paths
    from .runs.trained import load_trained

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    find_device(settings.device)  # one that is not there is refused before all that takes time
    encoders = [load_trained(path, settings.network) for path in encoder_paths(paths)]
    for trained in encoders:
        require_stages(trained)
    pictures = read_pictures(settings)
    if random:
        encoders += with_random_weights(encoders, settings.seed)
    require_writable(encoders, page)
    results: list[dict[str, Any]] = []
    try:
        for number, trained in enumerate(encoders, start=1):
            print(f"[{number}/{len(encoders)}] {trained.path}, {trained.network or 'file'}", flush=True)
            results.append(shown(trained, detect_with(trained, pictures, settings)))
    finally:  # what was scored before an error
        if results:
            print("\n" + "\n".join(detection_lines(results)))
            with writing(page, then="detect again with resume=auto"):
                write_detection_page(page, results, examples(pictures.test, results))
            print(f"Report: {page}")
    return results


if __name__ == "__main__":
    main(sys.argv[1:])
