"""Images a second of the trainer and of Lightly's benchmark of the same method, in one interleaved run.

    python -m benchmarks.throughput --rounds 3

SimCLR, ResNet-18 of width 16, 32 x 32 pixels, two views. Prints medians over the steps of all rounds, and the share of
the penalty.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import statistics
import tempfile
from collections import defaultdict

import torch

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import MemoryImages, Splits
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.runs.folders import open_run
from ortho_kernels.trainer.runs.pretrain import build_module, build_stream, fit

from .lightly_simclr import step_seconds
from .results import FOLDER, origin, write_csv

WIDTH = 16
WARM = 4  # steps that fill queues and caches; the rival's workers have as many batches ready when training starts


def trainer_seconds(pixels: torch.Tensor, words: list[str]) -> tuple[list[float], list[float]]:
    """The time of each step, and of its penalty."""
    images = MemoryImages(pixels, torch.zeros(len(pixels), dtype=torch.long))
    with tempfile.TemporaryDirectory() as runs:
        config = load_config([*words, f"runs={runs}"])
        splits = Splits(images, images, ["any"])
        stream = build_stream(config, splits, ALONE)
        module = build_module(config, splits, ALONE, steps=len(stream))
        with open_run(config, ALONE) as run:
            monitor = fit(config, run, module, stream, splits, ALONE, [])
    return monitor.step_seconds[WARM:], monitor.penalty_seconds[WARM:]


def main(rounds: int, steps: int, batch_size: int, workers: int) -> None:
    total = WARM + steps
    pixels = torch.randint(
        0, 256, (total * batch_size, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    words = [
        "method=simclr",
        "method.hidden=512",
        "data=cifar10",
        f"backbone.width={WIDTH}",
        f"trainer.batch_size={batch_size}",
        f"trainer.max_steps={total}",
    ]
    seconds: dict[str, list[float]] = defaultdict(list)
    penalties: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for penalty in ("none", "so", "srip"):
            times, parts = trainer_seconds(pixels, [*words, f"penalty={penalty}"])
            seconds[f"trainer, penalty={penalty}"] += times
            penalties[f"trainer, penalty={penalty}"] += parts
        seconds["Lightly"] += list(step_seconds(pixels, batch_size, total, workers, WIDTH / 64))[WARM:]
    rival = statistics.median(seconds["Lightly"])
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {rounds} rounds of {steps} steps, batch {batch_size}"
    )
    rows = []
    for name, times in seconds.items():
        step = statistics.median(times)
        share = statistics.median(penalties[name]) / step if penalties[name] else 0.0
        print(f"{name:24} {batch_size / step:7.1f} images/s  {rival / step:5.2f}x  penalty {share:6.2%} of the step")
        figures = {"images_per_second": f"{batch_size / step:.1f}", "penalty_share": f"{share:.4f}"}
        rows.append({"trainer": name, **figures, "rounds": rounds, **origin()})
    print(f"written: {write_csv(FOLDER / 'throughput.csv', rows)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    main(**vars(parser.parse_args()))
