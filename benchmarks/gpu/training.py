"""What the penalties cost a training: `python -m benchmarks.gpu.training data=digits trainer=gpu trainer.max_steps=200`.

The words are the trainer's options. The same short run without a penalty, with SO and with SRIP, and once more without one
but with a single batch over and over: what the data pipeline costs is the difference. What the pipeline does alone comes
first. Medians over the steps; the penalty's share is that of the device's time. Nothing is evaluated.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks.arguments import output_file
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import Splits, load_splits
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs.folders import open_run
from ortho_kernels.trainer.runs.pretrain import build_module, build_stream, fit, instantiate
from ortho_kernels.trainer.speed import held_stream

from .json_lines import show
from .machine import facts

HELD = "held batch"  # the run without a pipeline
RUNS = ("none", "so", "srip", HELD)  # a day whose time is short ends before the last, which no goal speaks of
ALONE_BATCHES = 300  # of the pipeline without a training
FIGURES = {"images_per_second": "images/s", "step_ms": "ms", "penalty_ms": "ms", "penalty_share": ""}


def timings(words: Sequence[str], splits: Splits, run: str) -> dict[str, float]:
    """What one run measures of itself, by the names of `FIGURES`; empty where it took too few steps."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config([*words, f"penalty={'none' if run == HELD else run}", f"runs={folder}"])
        stream = build_stream(config, splits, ALONE)
        if run == HELD:
            stream = held_stream(stream, next(iter(stream))[0], stream.batches)
        module = build_module(config, splits, ALONE, steps=len(stream) // config.trainer.accumulate)
        with open_run(config, ALONE) as opened:
            return fit(config, opened, module, stream, splits, ALONE, []).timings()


def pipeline_images_per_second(words: Sequence[str], splits: Splits) -> float:
    """What the host prepares where nothing else keeps it busy. Views are drawn on the device, and so don't count."""
    config = load_config([*words, "trainer.max_steps=" + str(ALONE_BATCHES + 1)])
    batches = iter(build_stream(config, splits, ALONE))
    next(batches)  # starts workers and draws the first order
    began = time.perf_counter()
    images = sum(len(pictures[0] if isinstance(pictures, list) else pictures) for pictures, _ in batches)
    return images / (time.perf_counter() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu.training", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="the trainer's options")
    parser.add_argument("--out", type=output_file, help="a file to which each finding is added as a line of JSON")
    options = parser.parse_args(arguments)
    show({"facts": facts()}, options.out)
    try:
        splits = load_splits(instantiate(load_config(options.words).data), ALONE)
        rate = pipeline_images_per_second(options.words, splits)
        show({"case": "pipeline alone images per second", "value": round(rate), "unit": "images/s"}, options.out)
        for run in RUNS:
            for name, value in timings(options.words, splits, run).items():
                figure = f"{run} {name.rsplit('_ms')[0].replace('_', ' ')}"
                show({"case": figure, "value": round(value, 5), "unit": FIGURES[name]}, options.out)
    except TrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
