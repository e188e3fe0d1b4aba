"""The sentences of reports: no more than the intervals allow, and what to bear in mind."""

import math

import pytest
from made_up_runs import made_up
from scipy import stats

from ortho_kernels.trainer.report.comparability import apart, cautions, parts_of
from ortho_kernels.trainer.report.findings import collapses, findings, of_many, unpaired
from ortho_kernels.trainer.report.groups import groups_of
from ortho_kernels.trainer.report.lead import lead, missing_sentence, reading, repeated, title
from ortho_kernels.trainer.report.measures import HEADLINES
from ortho_kernels.trainer.report.statistics import contrasts_of

NONE = {"penalty.gamma": 0.0}
DECAY = {"penalty.name": "decay"}


def seeds(label, knn, probe, rank, settings=()):
    values = zip(knn, probe, rank, strict=True)
    return [
        made_up(label, {**dict(settings), "seed": i}, knn=k, linear_probe=p, representation_effective_rank=r)
        for i, (k, p, r) in enumerate(values)
    ]


def study():
    return groups_of(
        [
            *seeds("none", [0.80, 0.81, 0.82], [0.9, 0.9, 0.9], [12.0, 12.1, 12.2], NONE),
            *seeds("so", [0.82, 0.831, 0.842], [0.91, 0.89, 0.9], [15.0, 15.2, 15.1]),
            *seeds("decay", [0.82, 0.832, 0.84], [0.9, 0.91, 0.9], [9.0, 9.2, 9.2], DECAY),
        ]
    )


def test_what_is_higher_and_lower_and_what_cannot_be_told_apart_is_said():
    found = findings(study())
    knn = stats.ttest_rel([0.82, 0.831, 0.842], [0.80, 0.81, 0.82]).confidence_interval(0.95)
    probe = stats.ttest_rel([0.91, 0.89, 0.9], [0.9, 0.9, 0.9]).confidence_interval(0.95)
    assert list(found) == ["so", "decay"]
    baseline, control = found["so"].split(" Against the control (decay, 3 seeds), ")
    assert baseline == (
        "Against its baseline (none, 3 seeds), kNN is higher by 2.10 points "
        f"(+{100 * knn.low:.2f} to +{100 * knn.high:.2f}) and effective rank is higher by 3.00 (+2.75 to +3.25). "
        f"Not told apart: linear probe (0.00 points, −{-100 * probe.low:.2f} to +{100 * probe.high:.2f})."
    )
    assert control.startswith("effective rank is higher by 5.97")
    assert "Not told apart: kNN (+0.03 points" in control
    assert "effective rank is lower by 2.97" in found["decay"]
    assert "control" not in found["decay"]


def test_nothing_is_claimed_where_nothing_differs_or_one_seed_is_all():
    same = groups_of(
        [
            *seeds("none", [0.80, 0.81, 0.82], [0.9, 0.91, 0.9], [12.0, 12.1, 12.2], NONE),
            *seeds("so", [0.81, 0.80, 0.82], [0.91, 0.89, 0.9], [12.1, 12.0, 12.2]),
        ]
    )
    assert findings(same)["so"].startswith("Against its baseline (none, 3 seeds), not told apart: kNN (0.00 points, −")
    alone = groups_of([group.runs[0] for group in same])
    assert findings(alone) == {
        "so": "Against its baseline (none, 1 seed), so without an interval: kNN +1.00 points, linear probe +1.00 points "
        "and effective rank +0.100."
    }
    foreign = groups_of([same[0].runs[0], same[1].runs[1]])
    assert "nothing to compare: they have no seed or measure in common" in findings(foreign)["so"]


def test_values_that_are_not_finite_are_named_and_nothing_is_claimed_of_them():
    found = findings(
        groups_of(
            [
                *seeds("none", [0.80, 0.81], [0.9, 0.91], [12.0, 12.1], NONE),
                *seeds("so", [math.nan, 0.80], [0.91, 0.89], [13.0, 13.1]),
            ]
        )
    )
    assert found["so"].startswith("Against its baseline (none, 2 seeds), ")
    assert found["so"].endswith(". kNN is not finite in a run.")
    assert "nan" not in found["so"]


def test_the_number_of_tests_is_said():
    groups = study()
    contrasts = contrasts_of(groups)
    clear = sum(
        stats.ttest_rel(second, first).pvalue < 0.05
        for first, second in [
            (
                [m.value(c.other.by_seed[i]) for i in range(3)],
                [m.value(c.group.by_seed[i]) for i in range(3)],
            )
            for c in contrasts
            for m in HEADLINES
        ]
    )
    assert of_many(contrasts, HEADLINES) == (
        f"9 differences are tested, each by an interval of 95 %, and {clear} of these exclude 0. "
        "Where nothing has an effect, 0.5 of 9 do on average."
    )
    assert of_many(contrasts_of(groups_of([group.runs[0] for group in groups])), HEADLINES) == ""


def test_groups_without_a_baseline_are_named():
    groups = groups_of([made_up("so"), made_up("byol", {"method.name": "byol"})])
    assert unpaired(groups).startswith("so and byol have no baseline here")
    assert unpaired(study()) == ""


def test_collapsed_runs_are_counted_by_group():
    runs = [made_up("so", {"seed": i}, spread=0.1 if i else 0.9, planned_steps=2000) for i in range(3)]
    [sentence] = collapses(groups_of(runs))
    assert sentence.startswith(
        "so: 2 of 3 runs have collapsed (seed 1, 2), and its means include them. Of the first, the spread of its "
        "projections is 0.1, below 0.3, and was stopped at step 1000 of 2000. Try a lower optimizer.lr"
    )
    assert collapses(groups_of(runs[:1])) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"data.name": "fashion_mnist"}},
        {"settings": {"evaluation.data": "cifar10"}},
        {"settings": {"evaluation.neighbors": 5}},
        {"test_images": 60},
    ],
)
def test_runs_judged_by_other_pictures_or_protocols_stay_apart(changes):
    groups = groups_of([made_up("one"), made_up("other", **changes)])
    parts = parts_of(groups)
    assert [[group.label for group in part] for part in parts.values()] == [["one"], ["other"]]
    [warning] = apart(parts)
    assert all(name in warning for name in parts)
    assert "do not compare" in warning


@pytest.mark.parametrize(
    "settings",
    [{"data.views.flip": 0.1}, {"data.size": 32}, {"evaluation.network": "teacher"}, {"method.name": "byol"}],
)
def test_runs_judged_alike_stay_together(settings):
    parts = parts_of(groups_of([made_up("one"), made_up("other", settings)]))
    assert len(parts) == 1
    assert apart(parts) == []


def test_other_pretraining_data_may_be_judged_by_the_same_pictures():
    same = {"evaluation.data": "cifar10", "evaluation.options": {}}
    groups = groups_of([made_up("one", same), made_up("other", {**same, "data.name": "stl10"})])
    assert len(parts_of(groups)) == 1


def test_what_does_not_compare_is_cautioned():
    groups = groups_of([made_up("one"), made_up("wide", {"backbone.width": 32}, representation_dimensions=256)])
    assert cautions(groups) == ["The features have 8 and 256 dimensions: ranks of different dimensions do not compare."]
    groups = groups_of([made_up("one"), made_up("long", {"trainer.max_steps": 9}, planned_steps=9)])
    assert cautions(groups) == ["The groups were trained for different numbers of steps."]


def test_the_lead_counts_seeds_and_steps():
    groups = groups_of([*(made_up("so", {"seed": i}) for i in range(3)), made_up("none", NONE, steps=900, note="Why.")])
    assert title(groups) == "So and none"
    assert lead(groups) == [
        "2 groups of 1 to 3 runs, which differ in the seed alone.",
        "900 to 1,000 steps on 2,000 images; the final encoder (no best step is chosen), frozen, is judged with 100 labeled "
        "and 50 test images.",
        "Why.",
    ]
    assert any("The test images alone leave ± 13.4 points" in text for text in reading(groups))


def test_titles_say_what_labels_have_in_common_once():
    labels = [{"label": "method=byol, penalty=so"}, {"label": "method=byol, penalty=none", "settings": NONE}]
    assert title(groups_of([made_up(**one) for one in labels])) == "method=byol: penalty=so and penalty=none"


def test_many_settings_are_left_to_the_configuration():
    groups = groups_of([made_up("one"), made_up("other", {f"trainer.option{i}": i for i in range(5)})])
    assert any("differ in 5 settings, which the configuration lists" in text for text in reading(groups))


def test_runs_that_are_left_out_are_counted_and_some_named():
    assert missing_sentence([]) == []
    assert missing_sentence(["one (failed)"]) == ["1 run is left out: one (failed)."]
    [sentence] = missing_sentence([f"run {i}" for i in range(9)])
    assert sentence.startswith("9 runs are left out: run 0; ")
    assert sentence.endswith("run 5; and 3 more.")


def test_a_repeated_run_is_named():
    first, again = made_up("so", folder="runs/first"), made_up("so", folder="runs/again")
    [sentence] = repeated([first, again], groups_of([first, again]))
    assert sentence == "A seed counts once: a later run has all settings in common with first."
