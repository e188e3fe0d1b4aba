"""Runs the emulated kernels under sanitizers.

    PYTHONPATH=tests python tests/emulation/sanitize.py            # AddressSanitizer and UndefinedBehaviorSanitizer
    PYTHONPATH=tests python tests/emulation/sanitize.py --races    # ThreadSanitizer

Every case of `cases.py` runs once in each form that it depends on, in a random order of threads, with copies and products
that come late. `--only TEXT` runs the cases whose name contains it, `--form FORM` one form. The exit status is 0 if all
are right and no sanitizer has anything to say. ThreadSanitizer sees a race in whatever order the threads ran: two accesses
to the same memory, one of them a write, that no barrier orders.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cases
import emulation
import forms
import torch

LIBRARIES = "EMULATED_LIBRARIES"  # a folder, set in the process that runs the cases


def run_cases(folder: Path, only: str, chosen: list[str]) -> None:
    torch.set_num_threads(1)  # ThreadSanitizer doesn't see what orders torch's own threads
    for form in chosen:
        emulator = emulation.Emulator(folder / form / "emulated.so")
        emulator.run_as("random", copies_arrive_late=True, resident_blocks=3)
        for name, case in cases.CASES.items():
            if only in name and form in forms.forms_of(name):
                case(emulator)
                print(f"clean: {form}, {name}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--races", action="store_true", help="look for races between the threads of the kernels")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains this")
    parser.add_argument("--form", nargs="+", choices=forms.FORMS, default=list(forms.FORMS))
    options = parser.parse_args()
    if LIBRARIES in os.environ:
        run_cases(Path(os.environ[LIBRARIES]), options.only, options.form)
        return 0
    if (reason := emulation.reason_against()) is not None:
        print(f"can't run here: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        if options.races:  # the emulator itself is one thread
            emulation.build_forms(Path(directory), kernel_flags=("-g1", "-fsanitize=thread"))
        else:
            emulation.build_forms(Path(directory), flags=emulation.SANITIZERS)
        environment = {
            **os.environ,
            LIBRARIES: directory,
            "LD_PRELOAD": emulation.runtime_of_sanitizer("tsan" if options.races else "asan"),
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": "halt_on_error=1",
        }
        return subprocess.run([sys.executable, __file__, *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
