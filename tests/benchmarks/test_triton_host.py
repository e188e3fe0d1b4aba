"""The host's time of Triton's operators, on a GPU that isn't there: Triton's driver is replaced in a process of its own."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")


def test_every_operator_is_timed_with_its_launch_and_without():
    command = [sys.executable, "-m", "benchmarks.triton_host", "--model", "wrn28_2", "--rounds", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    _, *rows = done.stdout.splitlines()
    figures = [[float(number) for number in row.split()[-4:]] for row in rows]
    assert [row[:20].strip() for row in rows] == ["views", "SO forward", "SO backward", "SRIP forward", "SRIP backward"]
    assert all(0 < own[0] <= own[1] and 0 < own[2] <= own[3] for own in figures)
