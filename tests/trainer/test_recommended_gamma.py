"""The recommended gamma and its evidence, against sums written out by hand."""

import math

import pytest
from made_up_map import decay, none, runs, so, srip
from scipy import stats

from ortho_kernels.trainer.report.groups import Failure, groups_of, with_failures
from ortho_kernels.trainer.report.recommended_gamma import recommendations

SCORES = {
    none(): [0.500, 0.520, 0.570],
    none(0.1): [0.481, 0.511, 0.552],
    none(10.0): [0.517, 0.530, 0.588],
    so(1e-4): [0.504, 0.522, 0.571],
    so(1e-3): [0.532, 0.549, 0.601],
    so(1e-2): [0.533, 0.550, 0.601],
    decay(1e-4): [0.508, 0.523, 0.581],
    decay(1e-3): [0.510, 0.532, 0.578],
}


def mean(values):
    return sum(values) / len(values)


def noise(scores):
    """Its standard deviation, and the degrees of freedom, of groups that all have all seeds."""
    rows = list(scores.values())
    seeds = range(len(rows[0]))
    total = mean([value for row in rows for value in row])
    squares = sum((row[s] - mean(row) - mean([r[s] for r in rows]) + total) ** 2 for row in rows for s in seeds)
    freedom = (len(rows) - 1) * (len(seeds) - 1)
    return math.sqrt(squares / freedom), freedom


def half_width(scores, choices, seeds=3):
    deviation, freedom = noise(scores)
    return stats.t.ppf(1 - (1 - 0.95 ** (1 / choices)) / 2, freedom) * deviation * math.sqrt(2 / seeds)


def recommend(scores, score="knn", **options):
    [found] = recommendations(groups_of(runs(scores, **options)), score)
    return found


def test_the_smallest_gamma_near_the_best_is_recommended_if_its_gain_is_clear():
    found = recommend(SCORES)
    assert mean(SCORES[so(1e-2)]) - mean(SCORES[so(1e-3)]) < noise(SCORES)[0] * math.sqrt(2 / 3)
    assert (found.gamma, found.value, found.reason) == (1e-3, "1e-3", "")
    gain = mean(SCORES[so(1e-3)]) - mean(SCORES[none()])
    half = half_width(SCORES, choices=3)
    assert (found.gain.value, found.gain.low, found.gain.high) == pytest.approx((gain, gain - half, gain + half))
    assert found.seeds == 3


def test_a_gamma_that_falls_short_of_the_best_by_more_than_its_error_is_not_near():
    scores = {**SCORES, so(1e-3): [value - 0.012 for value in SCORES[so(1e-3)]]}
    assert recommend(scores).gamma == 1e-2


def test_controls_are_the_best_of_their_kind_by_intervals_that_hold_for_all_pairs():
    found = recommend(SCORES)
    assert {kind: name for kind, (name, _) in found.over_controls.items()} == {
        "decay": "decay 1e-3",
        "weight decay": "weight decay ×10",
    }
    gain = mean(SCORES[so(1e-3)]) - mean(SCORES[decay(1e-3)])
    half = half_width(SCORES, choices=3 * 2)
    interval = found.over_controls["decay"][1]
    assert (interval.value, interval.high - interval.value) == pytest.approx((gain, half))
    assert found.verdicts[:2] == ["above the best decay", "above the best weight decay"]


def test_each_seed_judges_what_the_others_chose():
    found = recommend(SCORES)
    for one in found.other_seeds:
        others = {name: [v for s, v in enumerate(row) if s != one.seed] for name, row in SCORES.items()}
        deviation, _ = noise(others)
        gammas = [none(), so(1e-4), so(1e-3), so(1e-2)]
        best = max(mean(others[name]) for name in gammas)
        chosen = next(name for name in gammas if best - mean(others[name]) <= deviation * math.sqrt(2 / 2))
        controls = [none(0.1), none(10.0), decay(1e-4), decay(1e-3)]
        rival = max(controls, key=lambda name: mean(others[name]))
        on_seed = {name: row[one.seed] for name, row in SCORES.items()}
        assert one.gain == pytest.approx(on_seed[chosen] - on_seed[none()])
        assert one.over_control == pytest.approx(on_seed[chosen] - on_seed[rival])
    assert [one.seed for one in found.other_seeds] == [0, 1, 2]
    assert {one.chosen for one in found.other_seeds} <= {"so 1e-3", "so 1e-2"}


def test_no_gamma_is_recommended_where_none_is_told_apart():
    scores = {**SCORES, so(1e-3): [0.51, 0.51, 0.575], so(1e-2): [0.498, 0.523, 0.569]}
    found = recommend(scores)
    assert (found.gamma, found.value) == (None, "")
    assert found.reason == "no gamma is told apart from gamma 0"
    assert (found.shown, found.shown_value) == ("so 1e-4", "1e-4")
    assert found.gain.low < 0 < found.gain.value
    assert "above" not in " ".join(found.verdicts)


def test_gammas_that_cost_accuracy_are_named():
    scores = {
        **SCORES,
        **{so(g): [v - 0.1 for v in SCORES[so(1e-4)]] for g in (1e-3, 1e-2)},
        so(1e-4): [0.4, 0.42, 0.47],
    }
    found = recommend(scores)
    assert found.reason == "no gamma scores above gamma 0"
    assert "gamma 1e-4, 1e-3, 1e-2 scores below gamma 0" in found.cautions


def test_one_seed_recommends_nothing():
    found = recommend({name: row[:1] for name, row in SCORES.items()})
    assert found.gamma is None
    assert found.reason == "one seed leaves no estimate of the noise"
    assert found.shown_value == "1e-2"
    assert math.isnan(found.gain.low)
    assert found.other_seeds == ()


def test_a_map_that_stopped_within_a_seed_is_judged_by_what_there_is():
    scores = {**SCORES, so(1e-2): [0.533, 0.550, None], decay(1e-3): [0.510, None, None]}
    found = recommend(scores)
    assert found.gamma == 1e-3
    assert len(found.other_seeds) == 3
    late = recommend({**SCORES, none(): [0.500, 0.520, None]})
    assert "seed 2 does not count, since gamma 0 is missing there" in late.cautions
    assert late.seeds == 2


def test_a_gamma_of_one_seed_does_not_hide_those_that_are_told_apart():
    """Its mean is the best, but its interval is wide."""
    scores = {**SCORES, so(1e-3): [0.5125, 0.5275, 0.5815], so(1e-2): [None, None, 0.5817]}
    found = recommend(scores)
    gains = found.judged.gains(found.penalty)
    assert gains["so 1e-2"].value > gains["so 1e-3"].value > 0
    assert gains["so 1e-2"].low < 0 < gains["so 1e-3"].low
    assert found.gamma == 1e-3


def test_without_gamma_0_nothing_is_said():
    found = recommend({name: row for name, row in SCORES.items() if name != none()}, score="knn")
    assert found.gamma is None
    assert found.gain is None


def test_without_the_score_nothing_is_said():
    found = recommend(SCORES, score="linear_probe", linear_probe=None)
    assert found.reason == "no run at gamma 0 has a linear probe score"
    with pytest.raises(ValueError, match="one of knn, linear_probe, rankme"):
        recommendations(groups_of(runs(SCORES)), "accuracy")


def test_collapsed_and_diverged_gammas_are_left_out_and_named():
    whole = {name: row for name, row in SCORES.items() if name != so(1e-2)}
    collapsed = runs({so(1e-2): [0.1]}, spread=0.01) + runs({so(1e-2): [None, 0.9, 0.9]})
    [found] = recommendations(groups_of(runs(whole) + collapsed))
    assert found.gamma == 1e-3
    assert "gamma 1e-2 is left out: 1 of 3 runs collapsed" in found.cautions
    assert found.gain.high - found.gain.value == pytest.approx(half_width(whole, choices=2))
    nan = recommend({**whole, so(1e-2): [0.9, math.nan, 0.9]})
    assert "gamma 1e-2 is left out: kNN is not finite in a run" in nan.cautions
    assert nan.gain == found.gain


def test_a_gamma_whose_seeds_differ_far_more_widens_no_other_interval():
    wild = recommend({**SCORES, so(1e-2): [0.1, 0.9, 0.4]})
    assert "gamma 1e-2 is left out: its seeds differ far more than those of all others" in wild.cautions
    whole = {name: row for name, row in SCORES.items() if name != so(1e-2)}
    assert wild.gain.high - wild.gain.value == pytest.approx(half_width(whole, choices=2))


def test_the_best_gamma_at_the_edge_is_said():
    assert "the best gamma, 1e-2, is the largest that was tried" in recommend(SCORES).cautions
    lower = {**SCORES, so(1e-2): [0.52, 0.54, 0.59]}
    assert not any("largest" in caution for caution in recommend(lower).cautions)


def test_each_penalty_has_a_row_and_its_own_choices():
    found = recommendations(groups_of(runs({**SCORES, srip(0.02): [0.540, 0.558, 0.611]})))
    assert [(one.penalty.name, one.value) for one in found] == [("so", "1e-3"), ("srip", "2e-2")]
    every = {**SCORES, srip(0.02): [0.540, 0.558, 0.611]}
    assert found[1].gain.high - found[1].gain.value == pytest.approx(half_width(every, choices=1))


def test_rankme_judges_where_nothing_is_scored():
    found = recommend(
        {name: [100 * v for v in row] for name, row in SCORES.items()}, "rankme", key="representation_rankme"
    )
    assert found.gamma == 1e-3


def test_a_gamma_of_which_a_run_failed_is_judged_by_no_other_seed():
    """One that diverges in one seed of three would be flattered by the two that went well."""
    every = runs(SCORES)
    failed = next(run for run in every if run.results["settings"]["penalty.gamma"] == 1e-3)
    groups = groups_of([run for run in every if run is not failed])
    [found] = recommendations(
        with_failures(groups, [Failure(failed.results["settings"], "The penalty is inf at step 33")])
    )
    without = recommend({name: row for name, row in SCORES.items() if name != so(1e-3)})
    assert (found.gamma, found.gain) == (without.gamma, without.gain) == (1e-2, without.gain)
    assert "gamma 1e-3 is left out: 1 of 3 runs failed (The penalty is inf at step 33)" in found.cautions
