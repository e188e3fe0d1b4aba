"""The command that watches runs: which run it takes, what it prints, that it ends well and leaves a run as it was."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
import traceback
from pathlib import Path

import pytest
from live_runs import METRICS, finish, metrics_row, write_evaluations, write_run

from ortho_kernels.trainer import watch
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs.lock import acquire_lock


@pytest.fixture
def run(tmp_path):
    """A run that this process works on."""
    folder = write_run(tmp_path / "runs" / "first")
    with acquire_lock(folder):
        yield folder


def test_without_a_terminal_it_draws_once(run, capsys):
    before = sorted(run.iterdir())
    watch.main([str(run)])
    text = capsys.readouterr().out
    assert "SimCLR + SO 1e-06" in text
    assert "step 200 of 1,000 (20%)" in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 23
    assert sorted(run.iterdir()) == before


def test_of_a_folder_of_runs_it_takes_the_newest_and_says_which(run, capsys, monkeypatch):
    newest = write_run(run.parent / "a name that comes earlier")
    (run.parent / "compare-of-both").mkdir()
    later = (run / "config.yaml").stat().st_mtime + 5
    os.utime(newest / "config.yaml", (later, later))
    monkeypatch.chdir(run.parent.parent)
    watch.main([])
    assert "runs/a name that comes earlier" in capsys.readouterr().out


def test_several_runs_are_drawn_over_one_another(run, capsys):
    other = write_run(run.parent / "other", label="SimCLR baseline")
    watch.main([str(run), str(other), str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("a  SimCLR + SO 1e-06 training   step 200")
    assert lines[1].startswith("b  SimCLR baseline   stopped    step 200")
    assert lines[2] == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "There is no folder nowhere. Give a run's folder"),
        (["empty"], "empty is no run and holds none: no config.yaml"),
        (["--page", "runs/first"], "--page runs/first: that is a folder. Give RUN before --page"),
    ],
)
def test_what_is_no_run_is_said(run, monkeypatch, words, said):
    monkeypatch.chdir(run.parent.parent)
    Path("empty").mkdir()
    with pytest.raises(TrainerError, match=re.escape(said)):
        watch.main(words)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_the_time_between_two_looks_is_checked(run, capsys, seconds):
    with pytest.raises(SystemExit):
        watch.main([str(run), "--every", seconds])
    assert f"{seconds} is no number of seconds from 0.2 on" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(run):
    (run / "evaluations.csv").mkdir()
    with pytest.raises(TrainerError, match=r"Cannot read .*evaluations\.csv: Is a directory"):
        watch.main([str(run)])


def test_a_page_reloads_until_its_run_is_finished(run, capsys, monkeypatch):
    write_evaluations(run)
    page, seen = run / "watch.html", []

    def sleep(seconds):
        assert seconds == 7
        seen.append(page.read_text())
        if len(seen) == 1:
            with open(run / "metrics.csv", "a") as file:
                file.write(metrics_row(210))
        else:
            finish(run)

    monkeypatch.setattr(time, "sleep", sleep)
    watch.main([str(run), "--page", "--every", "7"])
    assert capsys.readouterr().out == f"{page.as_uri()}\n"
    for text, step in zip(seen, (200, 210), strict=True):
        assert '<meta http-equiv="refresh" content="7">' in text
        assert f"step {step} of 1,000" in text
    text = page.read_text()
    assert 'http-equiv="refresh"' not in text
    assert "finished" in text
    assert "It is renewed no longer." in text
    assert not list(run.glob("*.partial"))


def test_a_page_whose_watch_is_interrupted_does_not_reload(run, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    watch.main([str(run), "--page", str(run.parent / "page.html")])
    text = (run.parent / "page.html").read_text()
    assert 'http-equiv="refresh"' not in text
    assert "training" in text
    assert not (run / "watch.html").exists()


class Terminal:
    """A window in which a copy of this process runs the command: a new one would import torch first."""

    def __init__(self, *words, columns=80, lines=24, **environment):
        self.text, self.code = "", None
        self.pid, self.window = pty.fork()
        if self.pid == 0:
            for name in ("NO_COLOR", "COLUMNS", "LINES"):
                os.environ.pop(name, None)
            os.environ.update({"TERM": "xterm"} | environment)
            _run_command([str(word) for word in words])
        self.resize(columns, lines)
        os.set_blocking(self.window, False)

    def resize(self, columns, lines):
        fcntl.ioctl(self.window, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, text):
        os.write(self.window, text.encode())

    def shows(self, text, seconds=60):
        """Whether it does so from now on, within this time."""
        until, before = time.monotonic() + seconds, len(self.text)
        while time.monotonic() < until and text not in self.text[before:]:
            try:
                self.text += os.read(self.window, 1 << 16).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # the other side is closed, and all of it is read
                break
        return text in self.text[before:]

    def frame(self):
        """The last whole picture."""
        return self.text.rpartition(watch.SCREEN_END)[0].rpartition(watch.HOME)[2]

    def wait(self):
        """Returns the exit code."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def close(self):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()
        os.close(self.window)


def _run_command(words):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it, and so would a copy
    sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww")
    echoed = termios.tcgetattr(0)
    code = 70
    try:
        watch.main(words)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        print("The terminal is as before." if termios.tcgetattr(0) == echoed else "It is not.", flush=True)
        os._exit(code)


@pytest.fixture
def terminal():
    opened = []

    def start(*words, **options):
        opened.append(Terminal(*words, **options))
        return opened[-1]

    yield start
    for window in opened:
        window.close()


def test_in_a_terminal_it_goes_on_until_the_run_is_finished(run, terminal):
    files = sorted(run.iterdir())
    window = terminal(run, "--every", "0.2")
    assert window.shows("step 200 of 1,000")
    assert watch.ENTER in window.text
    assert "\x1b[36m" in window.text
    window.type("typed")
    with open(run / "metrics.csv", "a") as file:
        file.write(metrics_row(210) + "220,1.")  # and one that is being written
    assert window.shows("step 210 of")
    window.resize(60, 15)
    while len(window.frame().splitlines()) != 14:
        assert window.shows(watch.SCREEN_END)
    (run / "metrics.csv").write_text(f"{METRICS}\n" + "".join(metrics_row(step) for step in (140, 150)))  # it resumed
    assert window.shows("step 150 of")
    assert sorted(run.iterdir()) == files
    finish(run)
    assert window.shows("The terminal is as before.")
    assert window.wait() == 0
    _, _, left = window.text.partition(watch.LEAVE)
    assert "● finished" in left  # the last picture stays
    assert "typed" not in window.text


def test_control_c_restores_the_terminal(run, terminal):
    window = terminal(run, NO_COLOR="1")
    assert window.shows("images/s")
    window.type("\x03")
    assert window.shows(f"{watch.LEAVE}The terminal is as before.")
    assert window.wait() == 0
    assert "Traceback" not in window.text
    assert "\x1b[36m" not in window.text


def test_a_watch_that_is_terminated_restores_the_terminal(run, terminal):
    window = terminal(run)
    assert window.shows("images/s")
    os.kill(window.pid, signal.SIGTERM)
    assert window.shows(f"{watch.LEAVE}The terminal is as before.")
    assert window.wait() == 128 + signal.SIGTERM


def test_characters_are_those_that_the_locale_has(run):
    words = [sys.executable, "-m", "ortho_kernels.trainer.watch", str(run)]
    done = subprocess.run(words, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True)
    text = done.stdout.decode("ascii")
    assert "SimCLR + SO 1e-06" in text
    assert "* training" in text
