"""Runs the emulated kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

    python tests/emulation/sanitize.py

Every case of `cases.py` runs once in a random order of threads, with copies that arrive late. The exit status is 0 if all
are right and neither sanitizer has anything to say.
"""

import os
import subprocess
import sys
import tempfile

import cases
import emulation

LIBRARY = "EMULATED_LIBRARY"  # set in the process that runs the cases


def run_cases(library: str) -> None:
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
    with tempfile.TemporaryDirectory() as directory:
        library = emulation.build(directory, flags=emulation.SANITIZERS)
        # The sanitizer must be in the process before anything else is: Python itself has none.
        found = subprocess.run(
            [emulation.compiler(), "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
        )
        environment = {
            **os.environ,
            LIBRARY: str(library),
            "LD_PRELOAD": found.stdout.strip(),
            "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
        }
        return subprocess.run([sys.executable, __file__], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
