"""CPU time of each member of the family against that of soft orthogonality: `python -m benchmarks.family`.

Forward and backward of the same weights, in turn; the least of all rounds. Each member's value and gradients are compared
with the reference in float64 before it is timed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.measure import errors, interleave
from benchmarks.rivals import Penalty
from benchmarks.weight_sets import weights_of
from ortho_kernels import reference, soft_orthogonality

BASE = "so"
VALUE_ERROR, GRADIENT_ERROR = 1e-5, 1e-4  # relative; of a gradient in norm
SIGNS = 2e-2  # of a gradient that is made of signs: float32 may take another for an entry of R that nearly vanishes


class Member(NamedTuple):
    """A penalty of a list of weights, and its definition."""

    compute: Penalty
    define: Penalty
    gradient_error: float = GRADIENT_ERROR


def so(gradient_error: float = GRADIENT_ERROR, **options: object) -> Member:
    return Member(
        partial(soft_orthogonality, **options), partial(reference.soft_orthogonality, **options), gradient_error
    )


MEMBERS = {
    BASE: so(),
    "both sides": so(side="both"),
    "entries": so(reduction="entries"),
    "off-diagonal": so(diagonal=0.0),
    "l1": so(norm="l1", gradient_error=SIGNS),
    "l21": so(norm="l21"),
    "max": so(norm="max"),
    "cosines": so(normalize="rows"),
    "cosines, rows": so(normalize="rows", side="rows"),
    "cosines, l1": so(normalize="rows", norm="l1", gradient_error=SIGNS),
    "cosines, l21": so(normalize="rows", norm="l21"),
    "cosines, max": so(normalize="rows", norm="max"),
}


def gaussian(rows: int, columns: int) -> list[Tensor]:
    """Rows of length 1, on average."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(rows, columns, generator=generator) / columns**0.5).requires_grad_()]


WEIGHTS = {
    "resnet50": partial(weights_of, "resnet50"),
    "vit_small": partial(weights_of, "vit_small"),
    "codebook 8192 x 64": partial(gaussian, 8192, 64),
    "codebook 1024 x 256": partial(gaussian, 1024, 256),
    "router 8 x 4096": partial(gaussian, 8, 4096),
    "router 64 x 1024": partial(gaussian, 64, 1024),
}


def check(name: str, member: Member, weights: Sequence[Tensor]) -> None:
    """Raises `RuntimeError` where a member does not compute what it says."""
    value, gradient = errors(member.compute, member.define, weights)
    if not (value <= VALUE_ERROR and gradient <= member.gradient_error):
        raise RuntimeError(f"{name}: the value is off by {value:.1e}, the gradient by {gradient:.1e}")


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.family", description=__doc__)
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS)
    parser.add_argument("--members", nargs="+", default=list(MEMBERS), choices=MEMBERS)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each set of weights")
    options = parser.parse_args(arguments)
    members = {name: MEMBERS[name] for name in dict.fromkeys([BASE, *options.members])}
    print(f"{'weights':20} {'member':14} {'ms':>9} {'x SO':>6}")
    for title in options.weights:
        weights = WEIGHTS[title]()
        for name, member in members.items():
            check(f"{name} of {title}", member, weights)
        times = interleave({name: member.compute for name, member in members.items()}, weights, options.seconds)
        base = min(times[BASE]["both"])
        for name in members:
            least = min(times[name]["both"])
            print(f"{title:20} {name:14} {1e3 * least:9.3f} {least / base:6.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
