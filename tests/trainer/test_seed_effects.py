"""The model of all runs of a cell, against scipy's paired test and sums written out."""

import math

import numpy as np
import pytest
from scipy import stats

from ortho_kernels.trainer.report.seed_effects import seed_effects

SCORES = {
    "none": {0: 50.0, 1: 52.0, 2: 57.0},
    "weak": {0: 51.0, 1: 54.0, 2: 57.0},
    "strong": {0: 54.0, 1: 55.0, 2: 62.0},
    "decay": {0: 53.0, 1: 53.0, 2: 59.0},
}


def by_hand(scores):
    """Means of groups over those of the first, and the noise's variance: what group and seed leave unexplained."""
    groups, seeds = list(scores), list(scores["none"])
    group_mean = {g: sum(scores[g].values()) / len(seeds) for g in groups}
    seed_mean = {s: sum(scores[g][s] for g in groups) / len(groups) for s in seeds}
    mean = sum(group_mean.values()) / len(groups)
    squares = sum((scores[g][s] - group_mean[g] - seed_mean[s] + mean) ** 2 for g in groups for s in seeds)
    freedom = (len(groups) - 1) * (len(seeds) - 1)
    return {g: group_mean[g] - group_mean["none"] for g in groups}, squares / freedom, freedom


def simulated(random, groups=9, seeds=3, spread=None):
    """Scores without any effect of the group."""
    noise = random.normal(size=(groups, seeds)) * (np.ones(groups) if spread is None else spread)[:, None]
    values = noise + random.normal(size=seeds)
    return {str(g): dict(enumerate(row.tolist())) for g, row in enumerate(values)}


def test_whole_groups_have_the_means_and_the_noise_of_the_written_out_sums():
    effects, variance, freedom = by_hand(SCORES)
    model = seed_effects(SCORES)
    assert model.effects == pytest.approx(effects)
    assert model.noise == pytest.approx(math.sqrt(variance))
    assert model.freedom == freedom == 6
    assert model.standard_error("strong", "decay") == pytest.approx(math.sqrt(variance * 2 / 3))
    assert model.standard_error("strong", "none") == pytest.approx(math.sqrt(variance * 2 / 3))


def test_two_groups_have_the_interval_of_the_paired_test():
    model = seed_effects({name: SCORES[name] for name in ("none", "strong")})
    first, second = ([*SCORES[name].values()] for name in ("none", "strong"))
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    found = model.difference("strong", "none")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_intervals_that_hold_at_once_are_wider_by_sidaks_rule():
    model = seed_effects(SCORES)
    one, three = model.difference("weak", "none"), model.difference("weak", "none", choices=3)
    assert one.half_width == pytest.approx(stats.t.ppf(0.975, 6) * model.standard_error("weak", "none"))
    assert three.value == one.value
    share = 1 - 0.95 ** (1 / 3)  # that each may miss
    assert three.half_width / one.half_width == pytest.approx(stats.t.ppf(1 - share / 2, 6) / stats.t.ppf(0.975, 6))


def test_a_missing_run_leaves_the_least_squares_of_the_others():
    """Weak lacks seed 1. Its effect, by hand, is what makes the squares of all runs the least: searched for."""
    scores = {name: dict(SCORES[name]) for name in ("none", "weak", "strong")}
    del scores["weak"][1]
    model = seed_effects(scores)

    def squares(weak, strong):
        effects = {"none": 0.0, "weak": weak, "strong": strong}
        total = 0.0
        for seed in range(3):
            left = [own[seed] - effects[name] for name, own in scores.items() if seed in own]
            total += sum((value - sum(left) / len(left)) ** 2 for value in left)
        return total

    weak, strong = model.effects["weak"], model.effects["strong"]
    least = squares(weak, strong)
    for step in (1e-3, -1e-3):
        assert squares(weak + step, strong) > least
        assert squares(weak, strong + step) > least
        assert squares(weak + step, strong - step) > least
    assert model.freedom == 8 - 3 - 2
    assert model.noise == pytest.approx(math.sqrt(least / 3))
    assert model.standard_error("weak", "none") > model.standard_error("strong", "none")


def test_seeds_that_the_first_group_lacks_do_not_count():
    more = {**SCORES, "weak": {**SCORES["weak"], 7: 99.0}, "alone": {7: 99.0}}
    model = seed_effects(more)
    assert model.effects == pytest.approx(seed_effects(SCORES).effects)
    assert "alone" not in model.effects
    with pytest.raises(ValueError, match="first group needs a score"):
        seed_effects({"none": {}, "weak": {0: 1.0}})


def test_one_seed_has_effects_and_no_interval():
    model = seed_effects({name: {0: own[0]} for name, own in SCORES.items()})
    assert model.effects["strong"] == pytest.approx(4.0)
    assert math.isnan(model.noise)
    assert math.isnan(model.difference("strong", "none").low)
    assert model.unsteady() is None


def test_runs_that_agree_to_the_last_digit_have_no_noise():
    """Rounding would leave 1e-17, and an interval that excludes 0."""
    model = seed_effects(
        {"none": {0: 0.1, 1: 0.2, 2: 0.7}, "so": {0: 0.2, 1: 0.3, 2: 0.8}, "b": {0: 0.3, 1: 0.4, 2: 0.9}}
    )
    assert model.noise == 0
    assert model.difference("so", "none").half_width == 0


@pytest.mark.parametrize(
    ("effects", "found", "found_by_pairs"), [((0, 0, 0, 0), 0.02, 0.09), ((0, 0, 3, 3), 0.90, 0.73)]
)
def test_how_often_a_gain_is_found_where_there_is_none_and_where_there_is_one(effects, found, found_by_pairs):
    """Four gammas, four controls, three seeds, effects in units of the noise: the figures of docs/map.md."""
    random = np.random.default_rng(0)
    gammas, maps = ["1", "2", "3", "4"], 300
    held = gains = paired_gains = 0
    for _ in range(maps):
        scores = simulated(random)
        for gamma, effect in zip(gammas, effects, strict=True):
            scores[gamma] = {seed: value + effect for seed, value in scores[gamma].items()}
        model = seed_effects(scores)
        intervals = [model.difference(gamma, "0", len(gammas)) for gamma in gammas]
        held += all(one.low <= effect <= one.high for one, effect in zip(intervals, effects, strict=True))
        gains += any(one.low > 0 for one in intervals)
        pairs = [stats.ttest_rel([*scores[gamma].values()], [*scores["0"].values()]) for gamma in gammas]
        paired_gains += any(one.statistic > stats.t.ppf(0.975, 2) for one in pairs)
    assert held / maps == pytest.approx(0.96, abs=0.025)
    assert gains / maps == pytest.approx(found, abs=0.04)
    assert paired_gains / maps == pytest.approx(found_by_pairs, abs=0.06)


def test_a_group_whose_seeds_differ_far_more_than_those_of_others_is_found():
    random = np.random.default_rng(1)
    wild = [seed_effects(simulated(random, spread=np.r_[np.ones(8), 20])).unsteady() for _ in range(100)]
    assert wild.count("8") > 95
    steady = [seed_effects(simulated(random)).unsteady() for _ in range(300)]
    assert sum(name is not None for name in steady) <= 9  # 1 % are expected
    first = [seed_effects(simulated(random, spread=np.r_[20, np.ones(8)])).unsteady() for _ in range(50)]
    assert first.count("0") == 0
