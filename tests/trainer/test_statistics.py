"""The statistics of reports, against scipy's and numpy's of the same figures."""

import math

import numpy as np
import pytest
from made_up_runs import made_up
from scipy import stats

from ortho_kernels.trainer.report.groups import groups_of
from ortho_kernels.trainer.report.intervals import Interval
from ortho_kernels.trainer.report.later_scores import later_scores
from ortho_kernels.trainer.report.measures import COST, HEADLINES, REPRESENTATION, SCORES, present
from ortho_kernels.trainer.report.statistics import contrasts_of, excludes_zero, statistic

KNN, RANK = SCORES[0], REPRESENTATION[0]
NONE = {"penalty.gamma": 0.0}
DECAY = {"penalty.name": "decay"}
SO = [0.81, 0.83, 0.845, 0.82]
BASE = [0.80, 0.825, 0.83, 0.82]


def seeds(label, values, settings=(), first=0, **results):
    return [
        made_up(label, {**dict(settings), "seed": first + i}, knn=value, **results) for i, value in enumerate(values)
    ]


def test_the_mean_over_seeds_has_students_interval():
    [group] = groups_of(seeds("so", SO))
    found = statistic(group, KNN)
    low, high = stats.t.interval(0.95, len(SO) - 1, np.mean(SO), stats.sem(SO))
    assert found.count == 4
    assert (found.interval.value, found.interval.low, found.interval.high) == pytest.approx((np.mean(SO), low, high))
    assert KNN.write(found.interval.value) == "82.62 %"
    assert KNN.half_width(found.interval) == f"± {100 * (high - low) / 2:.2f}"


def test_a_single_run_has_the_interval_of_its_test_images():
    [group] = groups_of([made_up("so", knn=0.84, test_images=10000)])
    found = statistic(group, KNN)
    interval = stats.binomtest(8400, 10000).proportion_ci(method="wilson")
    assert found.interval == Interval(0.84, interval.low, interval.high)
    assert KNN.bounds(found.interval) == "83.27 to 84.71"
    assert math.isnan(statistic(group, RANK).interval.low)


def test_differences_are_paired_by_the_seeds_that_both_have():
    groups = groups_of([*seeds("so", SO), *reversed(seeds("none", BASE[1:], NONE, first=1))])
    [contrast] = contrasts_of(groups)
    found = contrast.difference(KNN)
    test = stats.ttest_rel(SO[1:], BASE[1:])
    interval = test.confidence_interval(0.95)
    assert (contrast.group, contrast.other, contrast.role, contrast.seeds) == (*groups, "baseline", 3)
    assert found.count == 3
    expected = (np.mean(np.subtract(SO[1:], BASE[1:])), interval.low, interval.high)
    assert (found.interval.value, found.interval.low, found.interval.high) == pytest.approx(expected)
    assert excludes_zero(found.interval) == (test.pvalue < 0.05)


def test_what_has_no_sign_excludes_no_zero():
    assert excludes_zero(Interval(0.2, 0.1, 0.3))
    assert excludes_zero(Interval(-0.2, -0.3, -0.1))
    assert not excludes_zero(Interval(0.2, -0.1, 0.5))
    assert not excludes_zero(Interval(0.2))
    assert not excludes_zero(Interval(0.2, 0.2, 0.2))  # two seeds that happen to agree


def test_contrasts_are_with_baselines_first_and_with_controls_then():
    groups = groups_of([*seeds("so", SO), *seeds("decay", SO, DECAY), *seeds("none", BASE, NONE)])
    found = [(contrast.group.label, contrast.other.label, contrast.role) for contrast in contrasts_of(groups)]
    assert found == [("so", "none", "baseline"), ("decay", "none", "baseline"), ("so", "decay", "control")]


def test_without_a_seed_in_common_there_is_no_difference():
    [contrast] = contrasts_of(groups_of([*seeds("so", SO), *seeds("none", BASE, NONE, first=9)]))
    assert contrast.difference(KNN) is None
    assert contrast.seeds == 0


def test_a_value_that_some_runs_lack_is_the_mean_of_the_others():
    [group] = groups_of(seeds("so", [*SO[:3], None]))
    found = statistic(group, KNN)
    assert (found.count, found.interval.value) == (3, pytest.approx(np.mean(SO[:3])))
    [group] = groups_of(seeds("so", [None, None]))
    assert statistic(group, KNN) is None
    assert KNN not in present(SCORES, group.runs)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_has_no_interval(value):
    groups = groups_of([*seeds("so", [*SO[:3], value]), *seeds("none", BASE, NONE)])
    found, [contrast] = statistic(groups[0], KNN), contrasts_of(groups)
    assert not math.isfinite(found.interval.value)
    assert KNN.half_width(found.interval) == ""
    assert math.isnan(contrast.difference(KNN).interval.value)
    assert not excludes_zero(contrast.difference(KNN).interval)
    assert KNN.difference(contrast.difference(KNN).interval) == "nan"


def test_infinities_of_both_signs_are_no_number():
    [group] = groups_of(seeds("so", [math.inf, -math.inf]))
    assert math.isnan(statistic(group, KNN).interval.value)


def test_a_baseline_pays_for_no_penalty():
    [group] = groups_of(seeds("none", BASE, NONE))
    assert [measure.short for measure in present(COST, group.runs)] == ["images/s", "step, ms"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(12.356, "12.36"), (2783.28, "2,783"), (0.016177, "0.01618"), (0.0, "0"), (3e-12, "3e-12"), (2e9, "2e+09")],
)
def test_numbers_have_four_digits(value, text):
    assert RANK.write(value) == text


def test_a_difference_and_its_bounds_have_the_same_decimals():
    interval = Interval(0.0123, -10.25, 10.2746)
    assert RANK.difference(interval) == "0.0"
    assert RANK.difference_bounds(interval) == "−10.2 to +10.3"
    assert KNN.difference(Interval(-0.00254)) == "−0.25"
    assert KNN.difference_unit == " points"
    assert RANK.difference(Interval(0.0)) == "0"


def test_new_summaries_come_from_results_or_from_spectra():
    run, later = made_up("so", representation_stable_rank=2.5, representation_lidar=None), made_up("so")
    later.spectra["summary"] = {"stable_rank": 3.5, "lidar": None, "alpha_req": 1.5}
    by_name = {measure.short: measure for measure in REPRESENTATION}
    assert [by_name["stable rank"].value(one) for one in (run, later)] == [2.5, 3.5]
    assert [by_name["LiDAR"].value(one) for one in (run, later)] == [None, None]
    assert [by_name["α-ReQ"].value(one) for one in (run, later)] == [None, 1.5]


def evaluated(accuracy, **content):
    return {"protocol": "knn", "data": "digits", "accuracy": accuracy, "train_images": 9, "test_images": 40, **content}


def test_later_evaluations_are_measures_of_their_own():
    runs = [
        made_up("so", {"seed": i}, evaluated={"knn": evaluated(a), "spectra": {"summary": {}}})
        for i, a in enumerate([0.5, 0.6])
    ]
    runs[0].evaluated["linear-cifar10"] = evaluated(0.7, protocol="linear", data="cifar10", test_images=99)
    [group] = groups_of(runs)
    knn, linear = later_scores(runs)
    assert (knn.title, linear.title) == ("knn, digits", "linear, cifar10")
    assert statistic(group, knn).interval.value == pytest.approx(0.55)
    found = statistic(group, linear)
    interval = stats.binomtest(round(0.7 * 99), 99).proportion_ci(method="wilson")
    assert found.count == 1
    assert found.interval == Interval(0.7, interval.low, interval.high)


def test_later_evaluations_of_other_pictures_are_not_the_same():
    runs = [
        made_up("so", {"seed": i}, evaluated={"knn": evaluated(0.5, test_images=images)})
        for i, images in enumerate([40, 80])
    ]
    measures = later_scores(runs)
    assert [measure.title for measure in measures] == ["knn, digits, 9 + 40 images", "knn, digits, 9 + 80 images"]
    assert [measure.value(runs[0]) for measure in measures] == [0.5, None]


def test_own_data_have_a_shorter_name_and_are_the_same():
    own = made_up("so", {"seed": 0}, evaluated={"knn": evaluated(0.5)})
    foreign = made_up("so", {"seed": 1}, evaluated={"knn-digits": evaluated(0.5)})
    [measure] = later_scores([own, foreign])
    assert (measure.title, measure.value(own), measure.value(foreign)) == ("knn, digits", 0.5, 0.5)
    own.evaluated["knn"]["data_origin"] = "another font"
    assert [measure.title for measure in later_scores([own, foreign])] == [
        "knn, digits, 9 + 40 images",
        "knn, digits, 9 + 40 images, another font",
    ]


def test_headlines_are_scores_and_the_effective_rank():
    assert [measure.short for measure in HEADLINES] == ["kNN", "linear probe", "effective rank"]
