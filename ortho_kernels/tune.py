"""`python -m ortho_kernels.tune`: measures configurations of the Triton kernels on this machine's GPU and keeps the fastest.

The file it writes takes the place of the built-in table for this architecture, for this user
(`~/.cache/ortho_kernels`, or the folder that the environment variable ORTHO_KERNELS_TUNED names). It is written after each
entry, and when the time is up or Ctrl-C is pressed with the best so far. Candidates are compiled first, on all cores.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryFile
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import triton
from .backends.triton import heuristics
from .backends.triton.ahead_of_time import Compilers, Job, WeightShape
from .backends.triton.heuristics import Configuration, Pass, Tile

# What a model's weights look like: those of a ResNet-50's stages and of a ViT-B's block.
SHAPES = [
    (64, 64, 1, 1), (64, 64, 3, 3), (256, 64, 1, 1), (128, 128, 3, 3), (512, 128, 1, 1), (256, 256, 3, 3),
    (1024, 256, 1, 1), (512, 512, 3, 3), (2048, 512, 1, 1), (2304, 768), (768, 768), (3072, 768), (768, 3072),
]  # fmt: skip
_SIDES, _DEPTHS, _WARPS, _STAGES = (64, 128), (16, 32, 64), (4, 8), (2, 3, 4)
_HELD = ((512, 4), (512, 8), (1024, 4), (1024, 8), (2048, 4))
_UPDATES = ((16, 64), (16, 128), (32, 64), (32, 128))
_PASSES = ("begin_iteration", "apply_residuals", "combine_sums", "finish_iteration")
COMPILING = 0.8  # of an entry's share of the time, at most: what is not compiled by then is not measured
PROGRESS_SECONDS = 5.0
PAUSE_CYCLES = 2_000_000  # of the GPU, about a millisecond, in which the host gets ahead: its part is not timed


class Step(NamedTuple):
    """Where an entry shows: the weights' dtype, the precision of the product, the operator that is timed.

    `kernels` are its own, and those that compute what it is given.
    """

    storage: torch.dtype
    precision: int
    operator: str
    kernels: tuple[str, ...]


_STEPS = {
    "residual_float32": Step(torch.float32, 0, "so", ("residuals",)),
    "residual_half": Step(torch.bfloat16, 0, "so", ("residuals",)),
    "product_float32": Step(torch.float32, 0, "so_backward", ("residuals", "residual_products")),
    "product_tf32": Step(torch.float32, 1, "so_backward", ("residuals", "residual_products")),
    "product_half": Step(torch.bfloat16, 0, "so_backward", ("residuals", "residual_products")),
    "passes": Step(torch.float32, 0, "srip", _PASSES),
    "update": Step(torch.float32, 0, "srip_backward", (*_PASSES, "rank_updates")),
}


def candidates(base: Configuration, entry: str) -> Iterator[Configuration]:
    """`base` first, then every other choice for one of its entries that fits the card."""
    yield base
    choices: list[Tile | Pass]
    if isinstance(getattr(base, entry), Pass):
        tiles = _HELD if entry == "passes" else _UPDATES
        choices = [Pass(*tile, warps, programs) for tile in tiles for warps in (*_WARPS, 16) for programs in (1, 2, 3)]
    else:
        choices = [
            Tile(rows, columns, depth, warps, stages)
            for rows in _SIDES
            for columns in _SIDES
            for depth in _DEPTHS
            for warps in _WARPS
            for stages in _STAGES
        ]
    for choice in choices:
        candidate = replace(base, **{entry: choice})  # type: ignore[arg-type]
        if candidate != base and not heuristics.misfits(candidate):
            yield candidate


@dataclass
class Outcome:
    """What became of one entry; `before` and `after`: seconds of a launch with the choice as it was and as it is."""

    entry: str
    choice: Tile | Pass
    candidates: int
    tried: int = 0  # measured, or found not to compile or not to run
    before: float | None = None
    after: float | None = None

    @property
    def cut_short(self) -> bool:
        return self.tried < self.candidates

    def __str__(self) -> str:
        if self.after is None:
            times = "as it was: none could be measured"
        else:
            before = "not measured" if self.before is None else f"{1e6 * self.before:.1f}"
            times = f"{1e6 * self.after:.1f} us (before: {before})"
        cut = f", cut short: {self.tried} of {self.candidates} candidates" if self.cut_short else ""
        return f"{self.entry:18}{self.choice}: {times}{cut}"


# Yields candidates as they are ready to be launched, and None for each that can't be; ends when the time is up.
Prepare = Callable[[str, Sequence[Configuration], float], Iterable[Configuration | None]]
# The seconds of a launch; None says that the card has not the resources.
Measure = Callable[[str, Configuration], float | None]


def tune(
    base: Configuration, entries: Sequence[str], prepare: Prepare, measure: Measure, until: float, say: Callable
) -> Iterator[tuple[Configuration, Outcome]]:
    """Yields the best configuration so far after each entry. Ctrl-C ends the entry at hand, and is raised after that.

    Each entry has an equal share of the time that is left until `time.monotonic()` says `until`.
    """
    best = base
    for place, entry in enumerate(entries):
        now = time.monotonic()
        share = (until - now) / (len(entries) - place)
        first, *others = candidates(best, entry)
        found = [first, *random.Random(0).sample(others, len(others))]  # if time is short, some of every kind are tried
        outcome = Outcome(entry, getattr(best, entry), len(found))
        progress = Progress(say)
        interrupt: KeyboardInterrupt | None = None
        try:
            for candidate in prepare(entry, found, now + COMPILING * share):
                if outcome.tried and time.monotonic() >= now + share:
                    break
                seconds = None if candidate is None else measure(entry, candidate)
                outcome.tried += 1
                progress(f"{entry}: tried {outcome.tried} of {len(found)}")
                if candidate is None or seconds is None:
                    continue
                if candidate == first:
                    outcome.before = seconds
                if outcome.after is None or seconds < outcome.after:
                    best, outcome.after, outcome.choice = candidate, seconds, getattr(candidate, entry)
        except KeyboardInterrupt as error:
            interrupt = error
        yield best, outcome
        if interrupt is not None:
            raise interrupt


class Progress:
    """Says something every few seconds."""

    def __init__(self, say: Callable[[str], object]):
        self._say, self._next = say, time.monotonic() + PROGRESS_SECONDS

    def __call__(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._say(text)
            self._next = time.monotonic() + PROGRESS_SECONDS


def compiled(
    entry: str, found: Sequence[Configuration], until: float, say: Callable, fill_cache: Callable
) -> Iterator[Configuration | None]:
    """`Prepare` by processes that fill triton's cache; candidates that compile the same share it. None where one fails."""
    step = _STEPS[entry]
    weights = tuple(map(WeightShape, SHAPES))
    jobs: dict[str, Job] = {}
    sharing: defaultdict[str, list[Configuration]] = defaultdict(list)
    for candidate in found:
        for kernel in step.kernels:
            job = Job(kernel, candidate, weights, step.storage, step.precision)
            if identity := job.identity:
                jobs.setdefault(identity, job)
                sharing[identity].append(candidate)
    missing = {candidate: sum(candidate in group for group in sharing.values()) for candidate in found}
    failed: set[Configuration] = set()
    identities = {job: identity for identity, job in jobs.items()}
    progress = Progress(say)
    for count, (job, reason) in enumerate(fill_cache(list(jobs.values()), until=until), 1):
        progress(f"{entry}: compiled {count} of {len(jobs)}")
        for candidate in sharing[identities[job]]:
            missing[candidate] -= 1
            if reason is not None:
                failed.add(candidate)
    for candidate in found:
        if candidate in failed:
            yield None
        elif not missing[candidate]:
            yield candidate


def reason_against_writing(folder: Path) -> str | None:
    """Why no file can be made in the folder, or None; known before hours are spent. The folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"{folder} can't be written ({error.strerror}); ORTHO_KERNELS_TUNED names another folder"
    return None


def write(configuration: Configuration) -> Path:
    """Writes the tuned file whole, or not at all."""
    path = heuristics.tuned_path(configuration.architecture)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(heuristics.as_json(configuration))
    unfinished.replace(path)
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m ortho_kernels.tune", description=__doc__)
    parser.add_argument("--entries", nargs="+", choices=tuple(_STEPS), default=list(_STEPS), metavar="NAME",
                        help=f"of {', '.join(_STEPS)}; by default all")  # fmt: skip
    parser.add_argument("--seconds", type=float, default=inf, help="for all, compilation included; by default no limit")
    parser.add_argument("--repeats", type=int, default=20, help="launches timed for each configuration")
    options = parser.parse_args(arguments)
    for name in ("seconds", "repeats"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} must be more than 0, got {getattr(options, name)}")
    until = time.monotonic() + options.seconds
    reason = triton.reason_against(torch.float32)
    if reason is not None:
        print(f"Nothing to tune: the Triton kernels can't serve here, because {reason}.", file=sys.stderr)
        return 1

    def say(text: str) -> None:
        print(text, flush=True)

    def measure(entry: str, candidate: Configuration) -> float | None:
        return _measure(candidate, _STEPS[entry], options.repeats)

    architecture = triton.architecture()
    if (reason := reason_against_writing(heuristics.tuned_path(architecture).parent)) is not None:
        print(f"Nothing was tuned: {reason}.", file=sys.stderr)
        return 1
    try:
        base = heuristics.configuration(architecture)
    except ValueError as error:
        say(f"The tuned file is not used: {error}")
        base = heuristics.TABLE[architecture]
    with Compilers(base.architecture) as compilers:
        prepare = partial(compiled, say=say, fill_cache=compilers.fill_cache)
        return keep_the_best(tune(base, options.entries, prepare, measure, until, say), say)


def keep_the_best(results: Iterator[tuple[Configuration, Outcome]], say: Callable[[str], object]) -> int:
    """Writes what each entry changed as soon as it is known; returns the exit status."""
    path, cut_short = None, []
    try:
        for best, outcome in results:
            say(str(outcome))
            if outcome.cut_short:
                cut_short.append(outcome.entry)
            if outcome.after is not None:
                path = write(best)
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    finally:
        if cut_short:
            say(f"Cut short: {', '.join(cut_short)}.")
        say(f"Written to {path}" if path else "Nothing was measured, and nothing is written.")
    return 0


def _measure(candidate: Configuration, step: Step, repeats: int) -> float | None:
    """The median seconds of one launch; None where the card has not the resources after all."""
    from triton.runtime.errors import OutOfResources

    from .backends.triton import operators, tables

    weights = [torch.randn(shape, dtype=step.storage, device="cuda") / 30 for shape in SHAPES]
    groups = wanted = [1] * len(weights)
    gradients = [torch.empty_like(weight) for weight in weights]
    sides = [int(weight.shape[0] > weight[0].numel()) for weight in weights]
    ones = torch.ones(len(weights), device="cuda")

    with tables.configured(candidate):
        start = torch.randn(tables.weight_place(weights, groups, sides).device.plan.total_order, device="cuda")

        def forward() -> tuple[Tensor, Tensor]:
            if step.operator.startswith("srip"):
                return operators.srip(weights, groups, sides, start, 2, True, True)
            return operators.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True)

        try:
            _, kept = forward()
            launch: Callable[[], object] = {
                "so": forward,
                "srip": forward,
                "so_backward": lambda: operators.soft_orthogonality_backward(
                    ones, weights, groups, sides, kept, step.precision, gradients, wanted, False
                ),
                "srip_backward": lambda: operators.srip_backward(
                    ones, weights, groups, sides, kept, 2, gradients, wanted, False
                ),
            }[step.operator]
            launch()
            torch.cuda.synchronize()
        except OutOfResources:
            return None
        taken = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(PAUSE_CYCLES)
            begin.record()
            launch()
            end.record()
            end.synchronize()
            taken.append(begin.elapsed_time(end) / 1e3)
    return median(taken)


if __name__ == "__main__":
    sys.exit(main())
