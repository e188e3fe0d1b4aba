"""A run that is killed without warning, at random moments and while it writes a checkpoint, ends with the same bits."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_and_resume.py")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="forks its runs")
@pytest.mark.parametrize("more", [[], ["--prolong"]])
def test_two_kills_leave_no_trace(more):
    done = subprocess.run([sys.executable, SCRIPT, "--kills", "2", *more], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 ended with the same bits" in done.stdout
