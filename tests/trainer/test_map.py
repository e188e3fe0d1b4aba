"""A map, from its words to its page: what it prints, what it takes, what stops it, and how it goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tiny import LONGER, tiny_words

from ortho_kernels.trainer import map as command
from ortho_kernels.trainer import sweep
from ortho_kernels.trainer.config.map_plan import MapSettings, plan_map
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.finished import read_finished
from ortho_kernels.trainer.runs import map_runs
from ortho_kernels.trainer.runs.cluster_job import Outcome
from ortho_kernels.trainer.runs.launchers import launch_one_by_one
from ortho_kernels.trainer.runs.time_budget import TimeBudget

ONE_CELL = ["method=simclr", "penalty=so", "penalty.gamma=1e-4", "seed=0"]
TITLES = [  # of its runs, with map.weight_decay=10
    "penalty.gamma=0, seed=0",
    "penalty.gamma=0.0001, seed=0",
    "penalty=decay, penalty.gamma=1e-06, seed=0",
    "penalty.gamma=0, optimizer.weight_decay=0.005, seed=0",
]


@pytest.fixture(autouse=True)
def _without_the_runs_own_pages(monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)


@pytest.fixture
def words(tmp_path):
    return [*tiny_words(), *ONE_CELL, f"runs={tmp_path}"]


@pytest.fixture
def build(words):
    """`build(attempt, "OPTION=VALUE", budget=MINUTES)`: a map of one cell whose runs `attempt` carries out."""

    def build(attempt, *more, **settings):
        settings = MapSettings(weight_decay=[10.0], **settings)
        return map_runs.MapRuns(plan_map([*words, *more], settings), settings, attempt)

    return build


def progress(printed):
    return [line for line in printed.splitlines() if " of 4, " in line]


def test_one_command_makes_all_runs_and_the_page(words, tmp_path, capsys):
    command.main([*words, "map.weight_decay=10"])
    printed = capsys.readouterr().out
    lines = progress(printed)
    assert [line.partition(": ")[2].rpartition(": ")[0] for line in lines] == TITLES
    assert lines[0].startswith("1 of 4, 0:")
    assert lines[3].rpartition(": ")[2].startswith("kNN ")
    [folder] = tmp_path.glob("map-*")
    assert printed.endswith(f"Map: {folder / 'report.html'}\n")
    assert "Recommended gamma" in (folder / "report.html").read_text()
    with open(folder / "map.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert (folder / "output.txt").read_text().count("Run ") == 4
    known = json.loads((folder / "map.json").read_text())
    assert [run["title"] for run in known["cells"][""]] == TITLES
    assert [run["weight_decay"] for run in known["cells"][""]] == [5e-4, 5e-4, 5e-4, 5e-3]
    assert len(known["seconds"][""]) == 4

    command.main([*words, "map.weight_decay=10", "map.budget=1e-9"])  # nothing is left that takes time
    again = capsys.readouterr().out
    assert again.startswith("4 of 4 runs are finished already.\n")
    assert progress(again) == []
    assert again.endswith(f"Map: {folder / 'report.html'}\n")


def test_runs_that_are_there_are_taken(words, build, run_tiny, capsys):
    run_tiny("method=simclr", "penalty=none", words[-1])
    taken = run_tiny("method=simclr", "penalty=so", "penalty.gamma=1e-4", words[-1])
    capsys.readouterr()
    runs = build(sweep.attempt)
    runs.carry_out()
    printed = capsys.readouterr().out
    assert printed.startswith("2 of 4 runs are finished already.\n")
    assert [line.split(",")[0] for line in progress(printed)] == ["3 of 4", "4 of 4"]
    assert runs.finished[TITLES[1]] == taken


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_does_not_fit_into_the_budget_is_left_for_the_next_call(build, capsys):
    clock = Clock()

    def attempt(config, threads):
        clock.now += 25
        return sweep.attempt(config, threads)

    runs = build(attempt, budget=2.0)
    runs.budget = TimeBudget(120.0, clock)
    runs.carry_out()
    printed = capsys.readouterr().out
    lines = progress(printed)
    assert printed.startswith("Timing a few steps of a run.\nA run: about 0:")
    assert [line.partition(": ")[0] for line in lines] == [
        "1 of 4, 0:50 of 2:00, about 2 more fit",
        "2 of 4, 1:15 of 2:00, about 1 more fit",
        "3 of 4, 1:40 of 2:00, about 0 more fit",
    ]
    assert "Not done: 1 of 4 runs. The same words go on." in printed
    assert f"{TITLES[3]} (not done yet)" in runs.page.read_text()

    again = build(sweep.attempt, budget=2.0)
    assert again.folder == runs.folder
    again.carry_out()
    printed = capsys.readouterr().out
    assert printed.startswith("3 of 4 runs are finished already.\n4 of 4, 0:")  # and nothing is timed again
    assert "Not done" not in printed


def test_a_budget_that_is_too_short_for_one_run_is_an_error_at_once(build, tmp_path, monkeypatch):
    clock = Clock()

    def seconds(config, threads, attempt, output):
        clock.now += 20
        return 100.0

    monkeypatch.setattr(map_runs, "time_whole_run", seconds)
    runs = build(sweep.attempt, budget=1.5)
    runs.budget = TimeBudget(90.0, clock)
    with pytest.raises(TrainerError) as raised:
        runs.carry_out()
    assert str(raised.value) == (
        "map.budget=1.5 is too short for one run: it takes about 1:40 here, and 1:10 of 1:30 are left. Give map.budget=3 or "
        "more, or shorter runs (trainer.max_steps)."
    )
    assert list(tmp_path.glob("2*")) == []


def test_a_few_steps_say_how_long_a_run_takes(build, tmp_path):
    runs = build(sweep.attempt, "trainer.max_steps=1008")
    config = next(iter(runs.planned.values())).config
    began = time.perf_counter()
    seconds = map_runs.time_whole_run(config, None, sweep.attempt, tmp_path / "output.txt")
    spent = time.perf_counter() - began
    assert spent < seconds < 200 * spent  # 1000 steps more than those that were taken
    assert list(tmp_path.glob("2*")) == []


def test_a_run_that_fails_stops_no_other(build, capsys):
    def attempt(config, threads):
        if config.penalty.name == "decay":
            raise RuntimeError("a bug. With a second sentence")
        if config.penalty.gamma:
            return Outcome(None, "It diverged. Lower something.")
        return sweep.attempt(config, threads)

    runs = build(attempt)
    with pytest.raises(TrainerError) as raised:
        runs.carry_out()
    assert str(raised.value) == (
        f"2 of 4 runs failed; the map without them is {runs.page}. Once the cause is mended, the same words run what is "
        "missing."
    )
    lines = progress(capsys.readouterr().out)
    assert lines[1].endswith(f": {TITLES[1]}: failed: It diverged")
    assert lines[2].endswith(f": {TITLES[2]}: failed: RuntimeError: a bug")
    page = runs.page.read_text()
    assert f"{TITLES[1]} (failed: It diverged)" in page
    assert "Traceback" in runs.output.read_text()

    again = build(sweep.attempt)
    again._read()
    assert [run.title for run in again.waiting] == [TITLES[1], TITLES[2]]


def test_a_failed_run_is_tried_again_after_all_others(build):
    runs = build(lambda config, threads: Outcome(None, "no"))
    runs.folder.mkdir()
    runs.failed[TITLES[0]] = "no"
    runs._write_state()
    again = build(sweep.attempt)
    again._read()
    assert [run.title for run in again.waiting] == [*TITLES[1:], TITLES[0]]
    assert again.missing()[0] == f"{TITLES[0]} (failed: no)", "it stays one until it is done"
    assert again.failures()[0].settings["seed"] == 0


@pytest.mark.parametrize(
    "stop", [KeyboardInterrupt(), TrainerError("Stopped by SIGTERM at step 3, which is saved: ...")]
)
def test_a_stop_leaves_the_page_of_what_is_there(build, stop):
    def attempt(config, threads):
        if config.penalty.gamma:
            raise stop
        return sweep.attempt(config, threads)

    runs = build(attempt)
    with pytest.raises(TrainerError, match=r"^Stopped after 1 of 4 runs. The same words go on.$"):
        runs.carry_out()
    assert f"{TITLES[1]} (not done yet)" in runs.page.read_text()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_cell_that_cannot_be_trained_is_named_before_the_time_goes_into_others(build):
    runs = build(sweep.attempt, "trainer.batch_size=5000", budget=1.0)
    with pytest.raises(TrainerError, match=r"^penalty.gamma=0.0001, seed=0: .*larger than the data"):
        runs.carry_out()


def test_two_maps_of_the_same_runs_do_not_work_at_once(build):
    def attempt(config, threads):
        with pytest.raises(TrainerError, match=r"map-.* is held by process .* and give the same words again\.$"):
            build(sweep.attempt).carry_out()
        raise KeyboardInterrupt

    with pytest.raises(TrainerError, match="Stopped after 0 of 4"):
        build(attempt).carry_out()


def test_a_file_that_no_map_has_written_is_named(build):
    runs = build(sweep.attempt)
    runs.folder.mkdir()
    (runs.folder / "map.json").write_text("[]")
    with pytest.raises(TrainerError, match=r"map.json is no file of a map. Remove it: no result is lost."):
        runs.carry_out()


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("map.budget=0", "map.budget must be more than 0; got 0.0."),
        ("map.budgt=3", "There is no option map.budgt. Did you mean map.budget?"),
        ("map.score=kn", "map.score must be one of knn, linear_probe, rankme; got kn."),
        ("map.decay=0", "map.decay must be more than 0; got 0.0."),
        ("map.weight_decay=x", "map.weight_decay"),
        ("map", "Cannot read map."),
    ],
)
def test_words_that_are_wrong(words, word, said):
    with pytest.raises(TrainerError) as raised:
        command.main([*words, word])
    assert said in str(raised.value)


def test_configurations_are_asked_for_again_when_a_run_has_ended(build):
    """A run that does not fit now may fit once another one was quicker than was thought."""
    waiting = [None, "second", "first"]
    settings = build(sweep.attempt).sweep
    done = launch_one_by_one(settings, waiting.pop, lambda config, threads: config.upper())
    assert list(done) == [("first", "FIRST"), ("second", "SECOND")]


def test_where_all_runs_fail_the_error_says_where_to_look(build):
    runs = build(lambda config, threads: Outcome(None, "It diverged."))
    with pytest.raises(TrainerError, match=r"4 of 4 runs failed; .*/output.txt has what they said\. Once the cause"):
        runs.carry_out()
    assert not runs.page.exists()


@pytest.mark.slow
def test_a_process_that_is_gone_is_an_error_that_says_how_to_go_on(build):
    runs = build(_ends_its_process, "sweep.launcher=joblib", "sweep.jobs=2")
    with pytest.raises(TrainerError, match=r"^A process that worked on a run is gone; .* The same words go on\."):
        runs.carry_out()


def _ends_its_process(config, threads):
    os._exit(9)


@pytest.mark.slow
def test_a_map_that_is_killed_goes_on_where_it_was(tmp_path):
    """Two processes work on two runs each time; both of them end with the one that started them."""
    words = [*LONGER, "penalty=so", "penalty.gamma=1e-4,1e-3", "seed=0", "map.weight_decay=[]", f"runs={tmp_path}"]
    words = [*words, "sweep.launcher=joblib", "sweep.jobs=2"]
    words = [word for word in words if word not in ("penalty=srip", "trainer.max_steps=24")] + ["trainer.max_steps=200"]
    map_of_gamma = [sys.executable, "-m", "ortho_kernels.trainer.map", *words]
    first = subprocess.Popen(map_of_gamma, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and len(set(map(os.path.dirname, tmp_path.glob("2*/checkpoints/step-*")))) < 2:
        time.sleep(0.05)
    first.kill()
    first.wait()
    begun = {path.parent for path in tmp_path.glob("2*/checkpoints")}
    assert len(begun) == 2
    done = subprocess.run(map_of_gamma, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "4 of 4, " in done.stdout
    [folder] = tmp_path.glob("map-*")
    output = (folder / "output.txt").read_text()
    assert {path for path in begun if f"Resuming {path}" in output} == begun
    found = read_finished([tmp_path])
    assert len(found.runs) == 4
    assert found.missing == []
