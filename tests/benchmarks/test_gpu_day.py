"""A day on a GPU, rehearsed without one: time boxes, failures that stop nothing, what is written, what it comes to."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_day, gpu_day_figures
from benchmarks.gpu import counters, findings, goals, stages, time_box, workload
from benchmarks.gpu.stages import Options, Stage

ROOT = Path(__file__).parents[2]
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def stage(name, code, seconds=30.0, **about):
    return Stage(name, seconds, lambda seconds: [sys.executable, "-c", code], **about)


def day(folder, seconds=60.0):
    options = Options(folder / "out", folder / "out" / "running.jsonl", folder)
    return gpu_day.Day(options, seconds, gpu_day.surroundings(folder))


def entries(folder):
    lines = [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]
    return {line["stage"]: line for line in lines if "status" in line}


def alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_box_ends_a_command_and_its_children(tmp_path):
    children = tmp_path / "children"
    waiting = "import time; print('here', flush=True); time.sleep(60)"
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {waiting!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        f"open({str(children)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    with (tmp_path / "log").open("w") as log:
        outcome = time_box.run([sys.executable, "-c", code], 8, log, os.environ, tmp_path)
    assert outcome.code is None
    assert 8 <= outcome.seconds < 20
    child = int(children.read_text())
    end = time.monotonic() + 5
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)
    printed = (tmp_path / "log").read_text()
    assert printed.count("most recent call first") == 2  # where both were


def test_nothing_stops_the_next_stage(tmp_path):
    own = day(tmp_path)
    note = f"import time; open({str(own.options.running)!r}, 'a').write"
    early, copy = '{"case": "early", "value": 2, "unit": "us"}', '{"case": "copy", "value": 3.0, "unit": "TB/s"}'
    own.spend(
        [
            stage("raises", "print('before'); raise ValueError('no luck')"),
            stage("sleeps", f"{note}({early!r} + chr(10)); time.sleep(60)", 1),
            stage("crashes", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
            stage("lacks a tool", "", tools=("no-such-tool",)),
            stage("lacks a module", "", modules=("no_such_module", "json")),
            Stage("can't start", 5, lambda seconds: ["/no/such/program"]),
            Stage("is faulty", 5, lambda seconds: [1 / 0]),
            stage("works", f"{note}({copy!r} + chr(10) + '{{\"cut sh')"),
        ]
    )
    found = entries(tmp_path)
    assert found["raises"]["status"] == "failed"
    assert found["raises"]["reason"] == "ValueError: no luck"
    assert found["sleeps"]["status"] == "out of time"
    assert 1 <= found["sleeps"]["seconds"] < 10
    assert found["crashes"]["reason"].startswith("SIGSEGV")
    assert found["lacks a tool"]["reason"] == "no-such-tool: not on the PATH"
    assert found["lacks a module"]["reason"] == "not installed: no_such_module"
    assert found["can't start"]["status"] == "failed"
    assert "No such file" in found["can't start"]["reason"]
    assert found["is faulty"]["reason"] == "gpu_day.py itself: ZeroDivisionError: division by zero"
    assert found["works"]["status"] == "ok"
    figures = {line["case"]: line["stage"] for line in own.findings if "value" in line}
    assert figures == {"early": "sleeps", "copy": "works"}  # and not the line that was cut short
    assert "before" in (tmp_path / "out" / "log.txt").read_text()
    summary = own.summary()
    assert "works: copy 3 TB/s" in summary
    assert "failed          " in summary


def test_what_has_no_time_left_is_an_entry(tmp_path):
    own = day(tmp_path, seconds=7)
    own.spend([stage("sleeps", "import time; time.sleep(60)", 3), stage("late", "print('here')")])
    assert entries(tmp_path)["sleeps"]["status"] == "out of time"
    assert entries(tmp_path)["late"] == {"stage": "late", "status": "not run", "seconds": 0.0, "reason": "no time left"}


TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2, "one is not two"
@pytest.mark.skip(reason="no GPU that torch can use")
def test_skipped(): pass
"""


@pytest.mark.parametrize(
    ("names", "status", "reason"),
    [
        ("good or skipped", "ok", ""),
        ("good or bad", "failed", "1 failed, 1 passed; the first: test_some::test_bad: AssertionError: one is not two"),
        ("skipped", "failed", "no GPU that torch can use"),
        ("nothing_of_that_name", "failed", "no test ran"),
    ],
)
def test_tests_are_counted(tmp_path, monkeypatch, names, status, reason):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer than all else
    (tmp_path / "test_some.py").write_text(TESTS)
    junit = tmp_path / "some.xml"
    words = [
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
        "-k",
        names,
        f"--junitxml={junit}",
    ]
    command = [sys.executable, *words, str(tmp_path / "test_some.py")]
    own = day(tmp_path)
    own.spend([Stage("tests", 60, lambda seconds: command, junit=junit)])
    entry = entries(tmp_path)["tests"]
    assert entry["status"] == status
    assert entry["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("a\nCUDA error: no kernel image is available for execution on the device\nb", "the library has no code for"),
        ("RuntimeError: The NVIDIA driver on your system is too old (found version 1)", "the driver is too old for"),
        ("cuda on cuda  no: the GPU's compute capability is 7.5; the kernels need 8.0 or newer", "the card is older than"),
        ("torch.OutOfMemoryError: CUDA out of memory", "out of memory"),
        ("  cuda float32   WRONG: 2e-5\nmore", "cuda float32 WRONG: 2e-5"),
        ("RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)\n", "RACECHECK SUMMARY: 2 hazards"),
        ("just\nthis\n\n", "this"),
        ("", "it printed nothing"),
    ],
)  # fmt: skip
def test_reasons_are_one_line(printed, reason):
    assert findings.reason(printed).startswith(reason)


def test_reasons_hold_no_control_characters():
    assert findings.reason("ok\nerror: \x00a\x1bb\x07\n") == "error: a b"


def test_pages_of_blank_lines_are_read_at_once():
    began = time.monotonic()
    assert list(findings.printed_figures("\n" * 100_000 + "   triton on cuda  no: none")) == [
        {"case": "triton", "error": "none"}
    ]
    assert time.monotonic() - began < 5


def test_garbage_without_end_stops_nothing(tmp_path):
    own = day(tmp_path)
    flood = "import os; [os.write(1, os.urandom(1000) * 1000) for _ in range(10)]; exit('\\nerror: the last word')"
    own.spend([stage("floods", flood), stage("next", "print('here')")])
    assert entries(tmp_path)["floods"]["reason"] == "error: the last word"
    assert entries(tmp_path)["next"]["status"] == "ok"


def test_a_day_goes_on_when_nobody_reads_what_it_prints(tmp_path):
    command = (
        f"{sys.executable} benchmarks/gpu_day.py --only variant ncu --out '{tmp_path}' | true; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines if "status" in line] == ["ncu cuda", "ncu triton", "variant"]


def test_a_full_disk_cuts_no_line_and_stops_nothing(tmp_path, capsys):
    """A limit on the size of files stands for the disk: writes come up short in the same way."""
    own = day(tmp_path)
    own.note({"case": "kept", "value": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (own.results.stat().st_size + 10, limits[1]))
    try:
        own.spend([stage("prints", "print('x' * 1000, flush=True)"), stage("next", "")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [json.loads(line)["case"] for line in own.results.read_text().splitlines()] == ["kept"]
    assert {finding["stage"] for finding in own.findings if "status" in finding} == {"prints", "next"}
    assert "not in results.jsonl: " in capsys.readouterr().out


CASE = {
    "stage": "kernels", "penalty": "so", "model": "resnet50", "dtype": "float32",
    "contestants": {
        "cuda": {"forward_us": {"median": 1.0}, "both_us": {"min": 1.0, "median": 2.5}, "rounds": 7, "peak_extra_mib": 12.0}
    },
    "left_out": {"triton": "out of memory"},
}  # fmt: skip
FACTS = {"facts": {"card": "Some GPU", "date": "2026-01-02", "commit": "abc", "torch": "2.11.0", "triton": "3.6.0"}}


DOCTOR = """
triton on cuda   no: triton is not installed
cpu on cuda      no: its kernels run on cpu, and the weights are on cuda
cuda on cuda     WRONG: largest relative error 2.0e-05 (so gradients)
cuda float32     works: 1.0e-06 at most (so values; 1e-05 is accepted)
cuda steps       the same bits twice, a CUDA graph replays WRONG
"""


def test_what_the_doctor_found_is_a_finding_each():
    assert [(found["case"], found["error"]) for found in findings.printed_figures(DOCTOR)] == [
        ("triton", "triton is not installed"),
        ("cuda on cuda", "WRONG: largest relative error 2.0e-05 (so gradients)"),
        ("cuda steps", "the same bits twice, a CUDA graph replays WRONG"),
    ]


def test_figures_are_added_to_a_table(tmp_path):
    table = tmp_path / "docs" / "gpu.csv"
    results = tmp_path / "results.jsonl"
    copy = {"stage": "ceilings", "case": "copy", "value": 3.04, "unit": "TB/s"}
    results.write_text("".join(json.dumps(line) + "\n" for line in (FACTS, copy, CASE)))
    for _ in range(2):
        assert gpu_day_figures.main([str(tmp_path), "--csv", str(table)]) == 0
    names, *rows = csv.reader(table.read_text().splitlines())
    assert tuple(names) == gpu_day_figures.COLUMNS
    about = ["Some GPU", "2026-01-02", "abc", "2.11.0", "3.6.0", ""]
    once = [
        [*about, "ceilings", "copy", "3.04", "TB/s"],
        [*about, "kernels", "so resnet50 float32 cuda forward", "1", "us"],
        [*about, "kernels", "so resnet50 float32 cuda both", "2.5", "us"],
        [*about, "kernels", "so resnet50 float32 cuda peak_extra", "12", "MiB"],
    ]
    assert rows == once + once
    table.write_text(table.read_text().removesuffix("\n"))  # as an editor may leave it
    assert gpu_day_figures.main([str(tmp_path), "--csv", str(table)]) == 0
    assert len(table.read_text().splitlines()) == 1 + 3 * len(once)
    assert gpu_day_figures.main([str(tmp_path / "nowhere")]) == 1


def test_what_was_left_out_stands_beside_ok(tmp_path):
    own = day(tmp_path)
    code = f"open({str(own.options.running)!r}, 'a').write({json.dumps(CASE)!r} + '\\n')"
    own.spend([stage("kernels", code)])
    assert entries(tmp_path)["kernels"]["reason"] == "so resnet50 float32 triton: out of memory"
    assert "kernels: so resnet50 float32: cuda 1/2.5 us" in own.summary()


def test_stages_are_chosen_by_name():
    made = [Stage(name, 1, lambda seconds: []) for name in ("doctor", "ncu cuda", "ncu triton")]
    names = lambda **words: [stage.name for stage in gpu_day.selected(made, **words)]  # noqa: E731
    assert names(only=[], skip=["doctor"]) == ["ncu cuda", "ncu triton"]
    assert names(only=["ncu"], skip=["ncu triton"]) == ["ncu cuda"]
    with pytest.raises(ValueError, match="no stage is named nsys; the stages: doctor, ncu cuda, ncu triton"):
        names(only=["nsys"], skip=[])


def test_a_signal_ends_the_day_with_its_summary(tmp_path):
    """Whatever lends the machine may end the day early."""
    command = [sys.executable, "benchmarks/gpu_day.py", "--only", "smoke", "variant", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("smoke ")
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "the day was stopped (SIGTERM)" in printed
    assert [line.split()[0] for line in printed.strip().splitlines()[-2:]] == ["smoke", "variant"]


def test_stages_call_modules_and_tests_that_are_there(tmp_path):
    """Most of them have nothing to run on a machine without the tools."""
    own = [each.command(60) for each in stages.all_stages(Options(tmp_path, tmp_path / "running.jsonl", tmp_path))]
    own += [counters.command(backend, ["so"], "resnet18", "float32") for backend in counters.KERNELS]
    modules = {command[place + 1] for command in map(list, own) for place, word in enumerate(command) if word == "-m"}
    assert {"benchmarks.gpu.penalties", "benchmarks.host_time", "benchmarks.gpu.training"} <= modules
    marks = {"gpu", "gpu and smoke"}  # pytest's own -m
    assert [name for name in modules - marks if find_spec(name) is None] == []
    assert [path for path in (*stages.NUMERIC, *stages.OF_THE_TRAINER) if not (ROOT / path).exists()] == []


def test_the_goals_have_stages_of_their_own(tmp_path):
    """All but those that make something first, and before all others."""
    made = stages.all_stages(Options(tmp_path, tmp_path / "running.jsonl", tmp_path))
    chosen = [each.name for each in gpu_day.selected(made, only=["goals"], skip=[])]
    assert chosen == [name for name in goals.STAGES if name in chosen]
    assert chosen == [each.name for each in made][: len(chosen)]
    assert {*goals.STAGES} - {*chosen} <= {"wheels", "build"}


@pytest.mark.slow
@without_gpu
def test_every_stage_fails_for_want_of_a_gpu_alone(tmp_path):
    """As far as this machine has the tools and libraries; the tests' own stages run in `test_tests_are_counted`."""
    skip = ["smoke", "cuda", "triton", "build", "training", "trainer"]
    words = ["--seconds", "200", "--out", str(tmp_path), "--csv", str(tmp_path / "gpu.csv"), "--skip", *skip]
    chosen = stages.all_stages(Options(tmp_path, tmp_path / "running.jsonl", tmp_path))
    named = {word for each in chosen for word in (each.name, each.name.split()[0])}
    words = [word for word in words if word != "build" or "build" in named]
    done = subprocess.run([sys.executable, "benchmarks/gpu_day.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    concluded = {line["stage"]: line for line in lines if "status" in line}
    assert {"ceilings", "doctor", "rivals", "host", "memcheck", "ncu cuda", "eager", "tuning"} <= set(concluded)
    for name, entry in concluded.items():
        assert entry["status"] != "ok", name
        wanting = ("GPU", "not on the PATH", "not installed", "--variants", "the stage before made nothing")
        assert any(words in entry["reason"] for words in wanting), entry
    assert not (tmp_path / "running.jsonl").exists()
    assert len(list(tmp_path.iterdir())) <= 8


@without_gpu
@pytest.mark.parametrize("what", ["shapes", "once"])
def test_the_workload_says_why_it_can_not_run(what, capsys):
    assert workload.main([what]) == 1
    assert capsys.readouterr().err.startswith("cuda can't run here: ")


@pytest.mark.gpu
@pytest.mark.smoke
@pytest.mark.parametrize("what", ["shapes", "once"])
def test_the_workload_runs(what, kernels):
    assert workload.main([what, "--backend", kernels, "--model", "resnet18"]) == 0


TABLE = """==PROF== Connected to process 1
"ID","Kernel Name","gpu__time_duration.sum","smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio","other"
"","","us","inst",""
"0","gram_residual","1,234.5","2.5","x"
"1","rank_update","99.0","0.5","x"
"""


def test_counters_are_read_from_the_table():
    found = list(counters.findings(TABLE))
    figures = {finding["case"]: (finding["kernel"], finding["value"], finding["unit"]) for finding in found}
    assert figures["gram_residual gpu__time_duration.sum"] == ("gram_residual", 1234.5, "us")
    assert figures["rank_update stall barrier"] == ("rank_update", 0.5, "cycles")
    assert list(counters.findings("==ERROR== ERR_NVGPUCTRPERM")) == []


@pytest.mark.parametrize(
    ("prints", "status", "said"),
    [(TABLE, 0, "1234.5"), ("==ERROR== ERR_NVGPUCTRPERM - no", 1, "no permission to read the GPU's counters")],
)
def test_ncu_is_called_and_its_refusal_explained(tmp_path, prints, status, said):
    ncu = tmp_path / "ncu"
    ncu.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\n")
    ncu.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "benchmarks.gpu.counters", "--table", str(tmp_path / "ncu.csv")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert prints.splitlines()[0] in (tmp_path / "ncu.csv").read_text()
