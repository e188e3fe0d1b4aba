"""A collapse is said while a run lasts, in its summary, results, report and sweep; a run that learns is left alone."""

import json
import math
import re

import pytest
from made_up_runs import made_up
from torch.nn import functional

from ortho_kernels.trainer import sweep
from ortho_kernels.trainer.methods import METHODS, Output, SimCLR
from ortho_kernels.trainer.report.collapse import LEAST_SPREAD, SLOW_STARTS, CollapseAlarm
from ortho_kernels.trainer.runs.launchers import Outcome
from ortho_kernels.trainer.runs.pretrain import pretrain

RUN = "trainer.max_steps=6", "trainer.tensorboard=false"


class Attracting(SimCLR):
    """Pulls the views of an image together and pushes nothing apart: its projections are nearly one."""

    def forward(self, views):
        first, second = (1 + 1e-3 * self.projector(self.encoder(view)) for view in views)
        return Output(functional.mse_loss(first, second), first)


@pytest.fixture
def attracting(monkeypatch):
    monkeypatch.setitem(METHODS, "simclr", Attracting)


def test_a_collapse_is_said_in_all_places(attracting, tiny, capsys):
    folder = pretrain(tiny("method=simclr", *RUN))
    said = capsys.readouterr().out
    assert said.count("Collapse: at step 3 the spread of the projections is 0.00") == 1
    during, _, summary = said.partition("kNN on frozen features")
    assert "lower optimizer.lr" in during
    sentence = re.search(
        rf"Attracting.* has collapsed: .*, below {LEAST_SPREAD}\. Try a lower optimizer.lr.*", summary
    )[0]
    assert f'<p class="alarm">{sentence}</p>' in (folder / "report.html").read_text()
    results = json.loads((folder / "results.json").read_text())
    assert results["collapsed"] is True
    assert results["spread"] < 0.01


def test_a_run_that_has_not_collapsed_is_left_alone(tiny, capsys):
    folder = pretrain(tiny("method=simclr", *RUN))
    assert "ollapse" not in capsys.readouterr().out
    assert '<p class="alarm">' not in (folder / "report.html").read_text()
    results = json.loads((folder / "results.json").read_text())
    assert results["collapsed"] is False
    assert results["spread"] > LEAST_SPREAD


def test_a_sweep_marks_what_has_collapsed(tmp_path):
    runs = [made_up(settings={"optimizer.lr": rate}, collapsed=rate == 9) for rate in (9, 1)]
    varied, records = [["lr=9"], ["lr=1"], ["lr=0"]], [*runs, None]
    outcomes = [Outcome(tmp_path), Outcome(tmp_path), Outcome(None, "It diverged.")]
    first, second, _ = sweep.table(varied, records, outcomes).splitlines()[1:]
    assert first.startswith("lr=9 (collapsed)  ")
    assert second.startswith("lr=1  ")
    header, *rows = (line.split(",") for line in sweep.as_csv(varied, records, outcomes).splitlines())
    assert [row[header.index("collapsed")] for row in rows] == ["True", "False", ""]


def test_the_alarm_waits_for_a_tenth_of_the_run_and_is_raised_once():
    alarm = CollapseAlarm("Try this.")
    said = {step: text for step in range(10, 1001, 10) if (text := alarm.update(step, 1000, 0.01))}
    assert list(said) == [110]
    assert said[110].endswith("is 0.01, below 0.3 since step 10 (1: all directions evenly, 0: all alike). Try this.")


def test_the_alarm_gives_mae_half_of_its_run_to_begin():
    alarm = CollapseAlarm("Try this.", SLOW_STARTS["mae"])
    assert [step for step in range(10, 10_001, 10) if alarm.update(step, 10_000, 0.06)] == [5010]
    alarm = CollapseAlarm("Try this.", SLOW_STARTS["mae"])
    assert not any(alarm.update(step, 1000, 0.06 if step < 400 else 0.7) for step in range(10, 1001, 10))


@pytest.mark.parametrize("spread", [LEAST_SPREAD, 1.0, math.nan])
def test_the_alarm_begins_anew_where_projections_spread_again(spread):
    alarm = CollapseAlarm("Try this.")
    heard = [alarm.update(step, 100, 0.01 if step % 3 else spread) for step in range(1, 101)]
    assert heard == [None] * 100


def test_the_alarm_of_a_long_run_does_not_wait_for_a_tenth():
    alarm = CollapseAlarm("Try this.")
    assert [step for step in range(100, 2000, 100) if alarm.update(step, 10**6, 0.0)] == [600]
