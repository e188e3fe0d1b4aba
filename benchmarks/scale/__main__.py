"""What the penalties cost on several ranks: `python -m benchmarks.scale`.

Counts work, bytes and memory from the partition. One call on 1, 2 and 4 gloo processes of this machine is then counted while
it runs, by its operators and collectives, and has to be equal to that. Eight ranks are counted alone. Values and gradients
are compared with one process's, on networks of the same structure and an eighth of the width. `--paper` has Llama-7B.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
from collections.abc import Sequence

from ..results import machine
from . import tables
from .counted import KINDS, LAYOUTS
from .goals import MODELS, goals, narrow
from .processes import ERROR, Case, check, did, error, run


def _check(models: Sequence[str], processes: int) -> None:
    """Raises `RuntimeError` where processes do something else than was counted, or find other numbers than one alone."""
    names = [(model, layout, kind) for model in models for layout in LAYOUTS for kind in KINDS]
    cases = [Case(", ".join(name), MODELS[name[0]], *name[1:]) for name in names]
    for case, found in zip(cases, run(cases, processes, did), strict=True):
        check(found, case)
    cases = [case._replace(shapes=narrow(case.shapes)) for case in cases]
    for case, errors in zip(cases, run(cases, processes, error), strict=True):
        if not max(errors) <= ERROR:
            raise RuntimeError(f"{case.name}: off by {max(errors):.1e} from one process on {processes}")
        print(f"{processes} processes, {case.name}: all as counted; off by {max(errors):.1e}", flush=True)


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--paper", action="store_true", help="the table of Llama-7B alone: nothing runs")
    parser.add_argument("--counted", action="store_true", help="the counts from the partition and the goals alone")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    options = parser.parse_args(arguments)
    if options.paper:
        print(tables.llama())
        return 0
    if not options.counted:
        print(machine())
        for processes in options.processes:
            _check([*options.models], processes)
    print(tables.counts())
    missed = [goal for goal in goals() if not goal.is_met]
    for goal in missed:
        print(f"missed: {goal.name} is {goal.found:.4f}, to be {goal.most} at most")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
