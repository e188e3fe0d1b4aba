"""CPU time of each member of the family against that of soft orthogonality: `python -m benchmarks.family`.

Forward and backward of the same weights, in turn; the least of all rounds, and the ratio of times a product. Each member's
value and gradients are compared with the reference in float64 before it is timed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.measure import errors, interleave
from benchmarks.rivals import Penalty
from benchmarks.weight_sets import weights_of
from ortho_kernels import compat, reference, soft_orthogonality

BASE = "so"
VALUE_ERROR, GRADIENT_ERROR = 1e-5, 1e-4  # relative; of a gradient in norm
SIGNS = 2e-2  # of a gradient that is made of signs: float32 may take another for an entry of R that nearly vanishes


def so_products(rows: int, cols: int) -> float:
    """Multiplications and additions of soft orthogonality, forward and backward: n^2 k / 2 for R, n^2 k for R W."""
    return 1.5 * min(rows, cols) * rows * cols


class Member(NamedTuple):
    """A penalty of a list of weights, its definition, and how many products it takes for a matrix."""

    compute: Penalty
    define: Penalty
    gradient_error: float = GRADIENT_ERROR
    products: Callable[[int, int], float] = so_products


def so(gradient_error: float = GRADIENT_ERROR, **options: object) -> Member:
    return Member(
        partial(soft_orthogonality, **options), partial(reference.soft_orthogonality, **options), gradient_error
    )


def against_constants(penalty: Callable[..., Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Each weight against a copy of itself, which gets no gradient: n m k products for G, n m k for P B."""
    return penalty(weights, against=[weight.detach() for weight in weights])


def against_weights(penalty: Callable[..., Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Each weight against itself: n m k products more for P^T A."""
    return penalty(weights, against=weights)


def against(compute: Callable[..., Tensor], products: int) -> Member:
    both = [partial(compute, penalty) for penalty in (soft_orthogonality, reference.soft_orthogonality)]
    return Member(*both, products=lambda rows, cols: products * rows * rows * cols)


def of_extremes(penalty: Callable[..., Tensor]) -> Member:
    """A penalty of the extreme eigenvalues, from start vectors that stay; its definition is itself, in float64."""

    def compute(weights: Sequence[Tensor]) -> Tensor:
        return penalty(weights, start=[torch.linspace(0.1, 1.0, 2 * len(weight)).view(2, -1).T for weight in weights])

    return Member(compute, compute)


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
    "ABD-Net's svmo": of_extremes(compat.svmo),
    "ABD-Net's svdo": of_extremes(compat.svdo),
    "against constants": against(against_constants, 2),
    "against weights": against(against_weights, 3),
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


def total_products(member: Member, weights: Sequence[Tensor]) -> float:
    return sum(member.products(len(weight), weight[0].numel()) for weight in weights)


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.family", description=__doc__)
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=WEIGHTS)
    parser.add_argument("--members", nargs="+", default=list(MEMBERS), choices=MEMBERS)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each set of weights")
    options = parser.parse_args(arguments)
    members = {name: MEMBERS[name] for name in dict.fromkeys([BASE, *options.members])}
    print(f"{'weights':20} {'member':18} {'ms':>9} {'x SO':>6} {'a product':>9}")
    for title in options.weights:
        weights = WEIGHTS[title]()
        for name, member in members.items():
            check(f"{name} of {title}", member, weights)
        times = interleave({name: member.compute for name, member in members.items()}, weights, options.seconds)
        base = min(times[BASE]["both"])
        for name, member in members.items():
            least = min(times[name]["both"])
            each = least / total_products(member, weights) / (base / total_products(members[BASE], weights))
            print(f"{title:20} {name:18} {1e3 * least:9.3f} {least / base:6.2f} {each:9.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
