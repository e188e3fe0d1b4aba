"""The curves of runs that still train, in the terminal or as a page that reloads.

    python -m ortho_kernels.trainer.watch RUN [RUN ...] [--page [FILE]]

It reads what the runs write, from outside, and changes nothing about them.
"""

import argparse
import contextlib
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import TrainerError, writing
from .report.live_run import LiveRun, State
from .report.terminal import draw
from .runs.lock import is_held

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the other screen without a cursor, and back
HOME, LINE_END, SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"  # move; clear to the end of the line; of the screen
TERMINAL_SECONDS, PAGE_SECONDS = 5.0, 15.0  # between two looks at the runs
LEAST_SECONDS = 0.2
RESIZE_SECONDS = 0.1  # between two looks at the window's size


def main(words: Sequence[str] | None = None) -> None:
    options = _options(words)
    runs = [LiveRun(run) for run in dict.fromkeys(map(find_run, options.runs))]
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm():
        if options.page is not None:
            path = options.page if options.page.name else runs[0].folder / "watch.html"
            _watch_page(runs, path, options.every or PAGE_SECONDS, options.once)
        elif options.once or not _draws_over():
            _look(runs)
            print("\n".join(_picture(runs, options.ascii)))
        else:
            _watch_terminal(runs, options.every or TERMINAL_SECONDS, options.ascii)


def find_run(path: Path) -> Path:
    """The folder of a run: this one, or the newest in it.

    Raises TrainerError where there is none.
    """
    path = path.expanduser()
    if not path.is_dir():
        raise TrainerError(f"There is no folder {path}. Give a run's folder, or the folder of all runs (runs=FOLDER).")
    if (path / "config.yaml").is_file():
        return path
    configurations = sorted(path.glob("*/config.yaml"), key=lambda file: (file.stat().st_mtime, file))
    if not configurations:
        raise TrainerError(f"{path} is no run and holds none: no config.yaml is in it or in a folder of it.")
    return configurations[-1].parent


def _look(runs: Sequence[LiveRun]) -> bool:
    """Returns whether any of them goes on."""
    try:
        for run in runs:
            run.look(held=is_held(run.folder))
    except OSError as error:
        raise TrainerError(f"Cannot read {error.filename}: {error.strerror}.") from None
    return any(run.state is not State.FINISHED for run in runs)


def _watch_terminal(runs: Sequence[LiveRun], every: float, ascii_only: bool) -> None:
    with _other_screen():
        while _look(runs):
            _show(runs, ascii_only)
            until, size = time.monotonic() + every, shutil.get_terminal_size()
            while (left := until - time.monotonic()) > 0:
                time.sleep(min(RESIZE_SECONDS, left))
                if shutil.get_terminal_size() != size:
                    size = shutil.get_terminal_size()
                    _show(runs, ascii_only)
    print("\n".join(_picture(runs, ascii_only)))  # the last one stays


def _watch_page(runs: Sequence[LiveRun], path: Path, every: float, once: bool) -> None:
    from .report.live_page import LivePage  # here, since matplotlib takes its time

    if path.is_dir():
        raise TrainerError(f"--page {path}: that is a folder. Give RUN before --page, or the name of a file after it.")
    page = LivePage(path, runs)
    with writing(path, then="watch again, or give another file: --page FILE"):
        goes_on = _look(runs) and not once
        page.write(every if goes_on else None)
        print(path.resolve().as_uri(), flush=True)
        try:
            while goes_on:
                time.sleep(every)
                goes_on = _look(runs)
                page.write(every)
        finally:
            page.write(None)  # nobody renews it any more


def _draws_over() -> bool:
    """Whether one picture can replace the other where they are printed."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _picture(runs: Sequence[LiveRun], ascii_only: bool) -> list[str]:
    width, height = shutil.get_terminal_size()
    colors = _draws_over() and not os.environ.get("NO_COLOR")
    return draw(runs, width, height - 1, colors, ascii_only or not _shows_braille())


def _shows_braille() -> bool:
    if os.environ.get("TERM") == "linux":  # the console's font has none
        return False
    try:
        "⣿│●".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _show(runs: Sequence[LiveRun], ascii_only: bool) -> None:
    lines = _picture(runs, ascii_only)
    sys.stdout.write(HOME + "\n".join(line + LINE_END for line in lines) + SCREEN_END)
    sys.stdout.flush()


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """As Ctrl-C ends it: the terminal is restored, and a page reloads no longer."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _other_screen() -> Iterator[None]:
    """A screen to draw on, without a cursor and without what is typed; afterwards all is as it was, whatever ends it."""
    sys.stdout.write(ENTER)
    try:
        with _silent_keys():
            yield
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()


@contextlib.contextmanager
def _silent_keys() -> Iterator[None]:
    """What is typed is neither shown nor kept; Ctrl-C works."""
    if not sys.stdin.isatty():
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)


def _options(words: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m ortho_kernels.trainer.watch", description="The curves of runs that still train."
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        default=[Path("runs")],
        metavar="RUN",
        help="a run's folder, or a folder of runs, of which the newest is taken; runs by default",
    )
    parser.add_argument(
        "--every", type=_seconds, metavar="SECONDS", help="between two looks; 5 by default, 15 for a page"
    )
    parser.add_argument("--once", action="store_true", help="draw once and end")
    parser.add_argument("--ascii", action="store_true", help="for fonts without Braille characters")
    parser.add_argument(
        "--page",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="write a page for a browser, again and again; RUN/watch.html by default",
    )
    return parser.parse_args(words)


def _seconds(word: str) -> float:
    try:
        seconds = float(word)
    except ValueError:
        seconds = math.nan
    if not LEAST_SECONDS <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{word} is no number of seconds from {LEAST_SECONDS} on")
    return seconds


if __name__ == "__main__":
    main()
