"""This checkout against another commit of it, on one thread of the CPU: `python benchmarks/against.py COMMIT`.

Each checkout is imported by a process of its own. Both get the same weights and run in turn, A B B A. Their minima are
compared, of processor time: other tenants of a machine only ever add to it. Each pass starts both processes anew: where code
and memory come to lie can cost a few percent. The time that is left after a few passes is for the rows whose ratio is not
near 1, the furthest first. The exit status is 1 if a row is slower by more than 5 %.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from itertools import count
from multiprocessing import get_context
from pathlib import Path

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks import arguments
from benchmarks.weight_sets import weights_of

ROOT = Path(__file__).resolve().parents[1]
Row = tuple[str, str, str]  # the penalty, the weights, the step
WEIGHTS = ("tiny", "resnet18", "resnet50", "vit_tiny", "resnet18 channels_last", "resnet18 bfloat16")
STEPS = ("forward", "forward + backward", "value and grad")
MODULE_STEPS = ("module", "module, accumulated")  # of tiny weights alone: they differ in what surrounds the kernels
ROWS: list[Row] = [(penalty, name, step) for name in WEIGHTS for penalty in ("so", "srip")
                   for step in (STEPS + MODULE_STEPS if name == "tiny" else STEPS)]  # fmt: skip
PASSES = 3  # over all rows
ROUNDS = 4  # A B B A of a row in a later pass; in the first passes one
TURN = 0.1  # seconds
SLOWER, NEAR = 1.05, 0.02


def build(commit: str) -> Path:
    """The commit, built in a folder that later runs find again. `ValueError` says what stands in the way."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"]
    sha = subprocess.run(words, capture_output=True, text=True).stdout.strip()
    if not sha:
        raise ValueError(f"{commit!r} is no commit of {ROOT}: give a hash, a branch or a tag")
    folder = ROOT / "build" / "against" / sha
    library = folder / "ortho_kernels" / "_C.abi3.so"
    if not library.exists():
        print(f"Building {sha[:12]} in {folder}: about three minutes on two cores ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", sha], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        subprocess.run(command, cwd=folder, env={**os.environ, "ORTHO_KERNELS_NO_CUDA": "1"}, check=True)
        if not library.exists():
            raise ValueError(f"{sha[:12]} has no native kernels: see {library.with_name('_build_log.txt')}")
    return folder


def start(checkout: Path) -> None:
    """Makes a process one of that checkout's package."""
    sys.path.insert(0, str(checkout))
    import ortho_kernels

    assert Path(ortho_kernels.__file__).parents[1] == checkout, ortho_kernels.__file__
    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def prepared(row: Row) -> Callable[[], object]:
    """The step of a row, by the package of this process."""
    import ortho_kernels

    penalty, (model, *form), step = row[0], row[1].split(), row[2]
    weights = weights_of(model, dtype=torch.bfloat16 if "bfloat16" in form else torch.float32)
    if "channels_last" in form:
        weights = [w.to(memory_format=torch.channels_last) if w.dim() == 4 else w for w in weights]
        weights = [weight.detach().requires_grad_() for weight in weights]
    if step in MODULE_STEPS:
        layers = nn.Sequential(*(nn.Linear(*weight.shape) for weight in weights))
        module = ortho_kernels.OrthogonalityPenalty(layers, penalty)
        return (lambda: module().backward()) if step == "module" else module.accumulate_gradients
    name = {"so": "soft_orthogonality", "srip": "srip"}[penalty]
    compute, fused = getattr(ortho_kernels, name), getattr(ortho_kernels, f"{name}_value_and_grad")
    return {
        "forward": lambda: compute(weights),
        "forward + backward": lambda: torch.autograd.grad(compute(weights), weights),
        "value and grad": lambda: fused(weights),
    }[step]


def shortest(row: Row) -> float:
    """Processor seconds of the shortest call of a turn."""
    step, taken, end = prepared(row), [], time.perf_counter() + TURN
    while not taken or time.perf_counter() < end:
        began = time.process_time()
        step()
        taken.append(time.process_time() - began)
    return min(taken)


@contextmanager
def processes(checkouts: Sequence[Path]) -> Iterator[list[ProcessPoolExecutor]]:
    """A fresh process for each checkout."""
    with ExitStack() as stack:
        context = get_context("spawn")
        yield [stack.enter_context(ProcessPoolExecutor(1, context, start, (each,))) for each in checkouts]


def compare(other: Path, this: Path, rows: Sequence[Row], seconds: float) -> dict[Row, list[float]]:
    """The minima of each row, in seconds: the other's and this one's. One pass at least, whatever the seconds."""
    least = {row: [float("inf")] * 2 for row in rows}
    end = time.monotonic() + seconds
    for number in count(1):
        far = [row for row in rows if number > PASSES and distance(least[row]) > NEAR]
        far.sort(key=lambda row: -distance(least[row]))
        with processes([other, this]) as own:
            for done, row in enumerate(far or rows, 1):
                print(f"\rpass {number}, row {done} of {len(far or rows)}    ", end="", file=sys.stderr, flush=True)
                for place in (0, 1, 1, 0) * (ROUNDS if far else 1):
                    least[row][place] = min(least[row][place], own[place].submit(shortest, row).result())
                if time.monotonic() > end and math.isfinite(max(map(max, least.values()))):
                    print(file=sys.stderr)
                    if number <= PASSES:
                        print(f"Too few passes to trust a ratio, {number - 1} of {PASSES}: give more seconds.")
                    return least
    raise AssertionError("a series without end ended")


def ratio(pair: Sequence[float]) -> float:
    """How many times as long this checkout takes as the other one."""
    return pair[1] / pair[0]


def distance(pair: Sequence[float]) -> float:
    """Of the two minima from each other, relative to the smaller one."""
    return max(pair) / min(pair) - 1


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="against.py", description=__doc__)
    parser.add_argument("commit", help="a hash, a branch or a tag of this repository")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=240.0, help="for the measurement, once it is built"
    )
    parser.add_argument(
        "--only", default="", metavar="WORDS", help="the rows that contain these words, such as 'so tiny'"
    )
    options = parser.parse_args(given)
    rows = [row for row in ROWS if options.only in " ".join(row)]
    try:
        if not rows:
            raise ValueError(f"no row contains {options.only!r}; rows are named like {' '.join(ROWS[0])!r}")
        other = build(options.commit)
    except ValueError as error:
        parser.error(str(error))
    least = compare(other, ROOT, rows, options.seconds)
    print(f"{'ms, minima':50}{'other':>10}{'this':>10}{'ratio':>8}")
    for row, pair in least.items():
        print(f"{' '.join(row):50}{1e3 * pair[0]:10.4f}{1e3 * pair[1]:10.4f}{ratio(pair):8.3f}")
    slower = [" ".join(row) for row, pair in least.items() if ratio(pair) > SLOWER]
    print(f"Slower by more than {SLOWER - 1:.0%}: {'; '.join(slower) or 'no row'}.")
    if (load := os.getloadavg()[1]) > 3 * (os.cpu_count() or 1):
        print(f"The load is {load:.0f}: others empty the caches, so that a ratio can be off by 5 %. Run it again.")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
