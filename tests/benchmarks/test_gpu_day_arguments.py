"""What a day on a GPU accepts, and where its folders are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_day
from benchmarks.gpu.stages import Options

ROOT = Path(__file__).parents[2]


def gpu_day_says(*words, **how):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_day.py"), "--only", "variant", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **how)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "soon"])
def test_seconds_are_above_zero(tmp_path, seconds):
    done = gpu_day_says("--out", str(tmp_path / "out"), f"--seconds={seconds}")
    assert done.returncode == 2
    assert f"expected a number of seconds above 0, got '{seconds}'" in done.stderr
    assert not (tmp_path / "out" / "results.jsonl").exists()


def test_what_can_not_be_written_or_read_is_said_before_the_day_begins(tmp_path):
    (file := tmp_path / "a file").write_text("foo,bar\n1,2\n")
    out = ("--out", str(tmp_path / "out"))
    for words, said in {
        ("--out", str(file)): "can't be written: ",
        ("--out", str(file / "below")): "can't be written: ",
        ("--out", ""): "expected a folder, got an empty name",
        (*out, "--csv", str(tmp_path)): "can't be written: Is a directory",
        (*out, "--csv", str(file)): "has other columns: 'foo,bar'",
        (*out, "--wheels", str(tmp_path / "nowhere")): "expected a folder, got ",
        (*out, "--variants", str(file)): "expected a folder, got ",
        (*out, "--cifar10", str(tmp_path)): "expected a file, got ",
    }.items():
        done = gpu_day_says(*words)
        assert done.returncode == 2
        assert said in done.stderr
    assert file.read_text() == "foo,bar\n1,2\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a file", "out"]


def test_folders_are_found_from_where_the_command_was_given(tmp_path):
    (tmp_path / "my builds").mkdir()
    (tmp_path / "my builds" / "broken.so").write_text("not a library")
    (tmp_path / "my wheels").mkdir()
    (tmp_path / "my wheels" / "broken-1-py3-none-any.whl").write_text("not a wheel")
    done = gpu_day_says("wheels", "--variants", "my builds", "--wheels", "my wheels", "--out", "my day", cwd=tmp_path)
    assert done.returncode == 0
    found = [json.loads(line) for line in (tmp_path / "my day" / "results.jsonl").read_text().splitlines()]
    reasons = {line["stage"]: line["reason"] for line in found if "status" in line}
    assert set(reasons) == {"wheels", "variant broken", "variant broken smoke", "variant broken ncu"}
    assert "No such file" not in reasons["wheels"]
    assert "does not exist" not in reasons["wheels"]


def test_one_folder_holds_one_day(tmp_path):
    own = gpu_day.Day(Options(tmp_path / "out", tmp_path / "out" / "running.jsonl", tmp_path), 60, {})
    own.note({"case": "mine", "value": 1})
    done = gpu_day_says("--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "another day is writing to" in done.stderr
    assert '"mine"' in own.results.read_text()
