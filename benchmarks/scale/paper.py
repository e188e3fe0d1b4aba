"""Llama-7B on 8 and 64 ranks under FSDP2, on paper: what the formulas give for machines that nobody here has run.

A step of training is taken as 6 N FLOP a token, N being the entries of the weights, and `TOKENS` tokens a rank. FSDP2 itself
moves every weight three times a step: gathered forward and backward, and the gradient back.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..model_shapes import Shapes, transformer
from .counted import FSDP2, KINDS, count, weight_bytes

TOKENS = 4 * 4096  # a rank and step: four sequences
LAYERS = transformer(4096, 4096, 11008, 32)
HEAD: Shapes = [(32000, 4096)]
PARTS = {"32 layers": LAYERS, "head": HEAD}
RANKS = (8, 64)


class Row(NamedTuple):
    """Of one step. FLOP are twice the multiply-adds, bytes are what a rank receives on average, memory is the largest.

    Attributes:
        fair: the FLOP of the rank with most of them, in fair shares of one process's.
        waiting: likewise, with what it waits for others.
        of_step: these FLOP relative to a rank's step of training.
        of_gathering: bytes relative to gathering every weight once.
        of_fsdp: bytes relative to what FSDP2 moves of all weights in a step.
    """

    flop: float
    fair: float
    waiting: float
    of_step: float
    received: float
    of_gathering: float
    of_fsdp: float
    memory: int


def row(shapes: Shapes, kind: str, ranks: int) -> Row:
    counts = count(shapes, FSDP2, kind, ranks)
    flop = 2 * max(counts.products)
    step = 6 * sum(map(math.prod, LAYERS + HEAD)) * TOKENS
    fsdp = 3 * (ranks - 1) * weight_bytes(LAYERS + HEAD)
    return Row(
        flop,
        ranks * counts.share(shapes, kind),
        ranks * counts.time(shapes, kind),
        flop / step,
        counts.received / ranks,
        counts.moved(shapes),
        counts.received / fsdp,
        max(counts.memory),
    )


def rows() -> dict[tuple[str, str, int], Row]:
    """By the part of the model, the penalty and the number of ranks."""
    return {
        (part, kind, ranks): row(shapes, kind, ranks)
        for part, shapes in PARTS.items()
        for kind in KINDS
        for ranks in RANKS
    }
