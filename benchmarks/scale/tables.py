"""The tables of docs/scale.md."""

from __future__ import annotations

from collections.abc import Sequence

from . import paper
from .counted import KINDS, LAYOUTS, count
from .goals import MODELS

RANKS = (2, 4, 8)
_PENALTIES = {"so": "SO", "srip": "SRIP"}


def counts() -> str:
    """For each number of ranks: a rank's work of one process's, all bytes relative to gathering, the largest memory."""
    head = [f"{what}, {ranks}" for what in ("work", "bytes", "MiB") for ranks in RANKS]
    lines = []
    for model, shapes in MODELS.items():
        for kind in KINDS:
            for layout in LAYOUTS:
                found = [count(shapes, layout, kind, ranks) for ranks in RANKS]
                cells = [_work(each.share(shapes, kind), each.time(shapes, kind)) for each in found]
                cells += [f"{each.moved(shapes):.2g}" for each in found]
                cells += [f"{max(each.memory) / 2**20:.1f}" for each in found]
                lines.append([model, _PENALTIES[kind], layout, *cells])
    return _table(["", "", "weights", *head], lines)


def _work(share: float, time: float) -> str:
    """What a rank computes, and in brackets with what it waits for others, where that differs."""
    return f"{share:.3f}" + (f" ({time:.3f})" if time > 1.005 * share else "")


def llama() -> str:
    head = ["", "", "ranks", "GFLOP a rank", "fair shares", "of a step's FLOP"]
    head += ["MB to a rank", "of gathering", "of FSDP2's bytes", "MiB"]
    lines = [
        [part, _PENALTIES[kind], str(ranks), _digits(row.flop / 1e9), _work(row.fair, row.waiting), _percent(row.of_step),
         _digits(row.received / 1e6), _percent(row.of_gathering), _percent(row.of_fsdp), f"{row.memory / 2**20:.0f}"]
        for (part, kind, ranks), row in paper.rows().items()
    ]  # fmt: skip
    return _table(head, lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])
