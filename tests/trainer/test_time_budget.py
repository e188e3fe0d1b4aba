"""What fits into the time that is left, by a clock that the test moves."""

import math

import pytest

from ortho_kernels.trainer.runs.time_budget import TimeBudget


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_a_run_fits_if_it_would_be_done_in_time(clock):
    budget = TimeBudget(60.0, clock)
    budget.expected["slow"] = 40.0
    clock.now += 20
    assert (budget.spent, budget.left) == (20.0, 40.0)
    assert budget.fits("slow")
    clock.now += 0.5
    assert not budget.fits("slow")


def test_runs_that_are_done_take_the_place_of_what_was_expected(clock):
    budget = TimeBudget(60.0, clock)
    assert not budget.knows("cell")
    budget.expected["cell"] = 100.0
    assert budget.knows("cell")
    assert budget.estimate("cell") == 100.0
    for seconds, longest in ((30.0, 30.0), (10.0, 30.0), (20.0, 30.0), (5.0, 20.0)):  # of the last three
        budget.measure("cell", seconds)
        assert budget.estimate("cell") == longest


def test_without_a_number_everything_fits(clock):
    budget = TimeBudget(None, clock)
    budget.measure("cell", 1e9)
    clock.now += 1e6
    assert budget.fits("cell")
    assert budget.left == math.inf


@pytest.mark.parametrize(
    ("under_way", "places", "expected"),
    [
        ([], 1, 3),  # 20 + 20 + 20 seconds
        ([], 2, 6),
        ([10.0], 1, 3),  # itself, and two more
        ([10.0, 30.0], 2, 5),  # 10+20+20 and 30+20, and both themselves
        ([70.0], 1, 0),  # itself ends too late, and nothing begins before
    ],
)
def test_how_many_more_fit(clock, under_way, places, expected):
    budget = TimeBudget(60.0, clock)
    budget.expected["cell"] = 20.0
    assert budget.count_that_fit(under_way, ["cell"] * 10, places) == expected


def test_short_runs_are_counted_where_a_long_one_does_not_fit(clock):
    budget = TimeBudget(60.0, clock)
    budget.expected |= {"long": 50.0, "short": 10.0}
    assert budget.count_that_fit([], ["long", "long", "short", "short"], 1) == 2
