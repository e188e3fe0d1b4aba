"""Plants faults in the CUDA kernels, one at a time, and counts how many of them the emulated tests catch.

    PYTHONPATH=tests python tests/emulation/mutate.py [--only PATTERN] [--minutes 10]

A fault is a barrier, a fence, a wait for asynchronous copies or products, or a mask that is not there. All of them are
compiled into one library for each form of the kernels. It takes the number of the fault to commit, so each costs a run of
the cases in `cases.py` and no compilation.
The exit status is 1 where fewer than 95 % are caught.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cases
import emulation
import forms
import torch

REQUIRED = 0.95
RUN_SECONDS = 900  # of the CPU, for a fault that makes the kernels go on for ever
# What a file computes, by which its cases come first; files that others build on are met by all cases.
PRODUCTS = ("residual", "product")
PENALTY: dict[str, str | tuple[str, ...]] = {
    "staging.cuh": PRODUCTS,
    "terms.cuh": PRODUCTS,
    "chunk_products.cuh": PRODUCTS,
    "tile_product.cuh": PRODUCTS,
    "loaders.cuh": PRODUCTS,
    "gram_residual.cuh": "residual",
    "gram_diagonal.cuh": "residual",
    "part_slots.cuh": "residual",
    "residual_product.cuh": "product",
    "residual_planes.cuh": "product",
    "power_iteration.cuh": "srip",
    "lines.cuh": "srip",
    "line_sums.cuh": "srip",
    "vector_pass.cuh": "srip",
    "rank_update.cuh": "srip",
    "start_vectors.cuh": "start",
}
STATEMENTS = re.compile(
    r"(?<=[\s{])(?:(?:block_barrier|memory_fence|await_copies<[^>]*>|commit_copies"
    r"|show_to_tensor_cores|begin_products|commit_products)\(\)|await_products\(\w+\));"
)
CALLS = re.compile(r"(?<=[\s{)] )(?:sync_at|arrive_at|post)\((?!std)")  # with arguments in brackets
MASK = re.compile(r"\bwithin\(")
DEFINING = ("device.cuh", "intrinsics.cuh", "runtime.cuh")  # define what is left out elsewhere


class Fault(NamedTuple):
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {' '.join(self.text.split())}"


def end_of_call(text: str, opening: int) -> int:
    """The index behind the bracket that closes the one at `opening`."""
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index + 1
    raise ValueError("a bracket is not closed")


def planted(name: str, text: str, faults: list[Fault]) -> str:
    """The source with a switch at each place where a fault can be; the faults are appended to the list."""
    places = [(m.start(), m.end(), False) for m in STATEMENTS.finditer(text)]
    places += [(m.start(), end_of_call(text, m.end() - 1) + 1, False) for m in CALLS.finditer(text)]
    places += [(m.start(), end_of_call(text, m.end() - 1), True) for m in MASK.finditer(text)]
    pieces, done = [], 0
    for start, end, is_mask in sorted(places):
        if start < done:
            raise ValueError(f"{name}: a mask within a mask")
        number = len(faults)
        faults.append(Fault(name, text.count("\n", 0, start) + 1, text[start:end]))
        code = text[start:end]
        switch = (
            f"(emulator::fault_is({number}) || {code})" if is_mask else f"if (!emulator::fault_is({number})) {code}"
        )
        pieces += [text[done:start], switch]
        done = end
    return "".join([*pieces, text[done:]])


def build_with_faults(directory: Path) -> tuple[dict[str, Path], list[Fault]]:
    """Returns a library of each form that commits the fault chosen, and the list of all faults."""
    sources = directory / "csrc" / "ortho"
    shutil.copytree(emulation.KERNELS.parent, sources)
    faults: list[Fault] = []
    for path in sorted((sources / "cuda").glob("*.cuh")):
        if path.name not in DEFINING:
            path.write_text(planted(path.name, path.read_text(), faults))
    shutil.copytree(emulation.HERE, directory / "tests" / "emulation")
    moved = [
        sources / "cuda" / source.name
        if source.parent == emulation.KERNELS
        else directory / "tests" / "emulation" / source.name
        for source in emulation.SOURCES
    ]
    return emulation.build_forms(directory, moved, ("-Wno-error",)), faults


def verdict(emulators: dict[str, emulation.Emulator], number: int, file: str = "") -> str:
    """Which case catches the fault, `""` if none does. Runs in a process of its own: a fault may end it."""
    runs = [(form, name) for name in cases.CASES for form in forms.forms_of(name)]
    runs.sort(
        key=lambda run: (file == "loaders.cuh" and run[0] != "loaders", not run[1].startswith(PENALTY.get(file, "")))
    )
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (RUN_SECONDS, RUN_SECONDS + 5))
        for emulator in emulators.values():
            emulator.library.emulator_commit_fault(number)
        caught = False
        for form, name in runs:
            os.write(writing, f"{form}, {name}\n".encode())
            try:
                cases.run_in_all_ways(emulators[form], name)
            except Exception:
                caught = True
                break
        os.write(writing, f"{'caught' if caught else 'survived'}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().split("\n")[:-1]
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return f"{lines[-1]}: {signal.Signals(os.WTERMSIG(status)).name}"
    return lines[-2] if lines[-1] == "caught" else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only", default="", help="faults in whose file, line or text this regular expression is found"
    )
    parser.add_argument(
        "--minutes", type=float, default=10, help="faults that aren't run by then are reported as not run"
    )
    options = parser.parse_args()
    if (reason := emulation.reason_against()) is not None:
        parser.exit(2, f"can't run here: {reason}\n")
    torch.set_num_threads(1)  # what is forked must not wait for threads that it lacks
    with tempfile.TemporaryDirectory() as directory:
        libraries, faults = build_with_faults(Path(directory))
        emulators = {form: emulation.Emulator(library) for form, library in libraries.items()}
        if by := verdict(emulators, -1):
            parser.exit(2, f"the cases fail without a fault: {by}\n")
        chosen = [number for number, fault in enumerate(faults) if re.search(options.only, str(fault))]
        end = time.monotonic() + 60 * options.minutes

        def outcome(number: int) -> str | None:
            return verdict(emulators, number, faults[number].file) if time.monotonic() < end else None

        caught, survivors, late = 0, [], []
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for number, by in zip(chosen, pool.map(outcome, chosen), strict=True):
                if by is None:
                    late.append(faults[number])
                    continue
                caught += bool(by)
                if not by:
                    survivors.append(faults[number])
                print(f"caught   {faults[number]}  ({by})" if by else f"SURVIVED {faults[number]}", flush=True)
    run = len(chosen) - len(late)
    for fault in late:
        print(f"not run  {fault}")
    print(f"{caught} of {run} planted faults were caught ({100 * caught / max(run, 1):.1f} %)")
    for fault in survivors:
        print(f"  survived: {fault}: a test is missing")
    return 0 if run and not late and caught >= REQUIRED * run else 1


if __name__ == "__main__":
    sys.exit(main())
