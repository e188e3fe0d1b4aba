"""Runs the emulated kernels under sanitizers.

    PYTHONPATH=tests python tests/emulation/sanitize.py            # AddressSanitizer and UndefinedBehaviorSanitizer
    PYTHONPATH=tests python tests/emulation/sanitize.py --races    # ThreadSanitizer

Every case of `cases.py` runs once in a random order of threads, with copies that arrive late. The exit status is 0 if all
are right and no sanitizer has anything to say. ThreadSanitizer sees a race in whatever order the threads ran: two accesses
to the same memory, one of them a write, that no barrier orders.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import cases
import emulation
import torch

LIBRARY = "EMULATED_LIBRARY"  # set in the process that runs the cases


def run_cases(library: str) -> None:
    torch.set_num_threads(1)  # ThreadSanitizer doesn't see what orders torch's own threads
    emulator = emulation.Emulator(library)
    emulator.run_as("random", copies_arrive_late=True, resident_blocks=3)
    for name, case in cases.CASES.items():
        case(emulator)
        print(f"clean: {name}", flush=True)


def main() -> int:
    if LIBRARY in os.environ:
        run_cases(os.environ[LIBRARY])
        return 0
    if (reason := emulation.reason_against()) is not None:
        print(f"can't run here: {reason}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--races", action="store_true", help="look for races between the threads of the kernels")
    races = parser.parse_args().races
    with tempfile.TemporaryDirectory() as directory:
        if races:  # the emulator itself is one thread
            library = emulation.build(directory, kernel_flags=("-g1", "-fsanitize=thread"))
        else:
            library = emulation.build(directory, flags=emulation.SANITIZERS)
        environment = {
            **os.environ,
            LIBRARY: str(library),
            "LD_PRELOAD": emulation.runtime_of_sanitizer("tsan" if races else "asan"),
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "TSAN_OPTIONS": "halt_on_error=1",
        }
        return subprocess.run([sys.executable, __file__], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
