"""Which runs belong together, and which group is whose baseline and control."""

from made_up_runs import made_up

from ortho_kernels.trainer.report.groups import baseline_of, control_of, families_of, groups_of, repeats_in

NONE = {"penalty.gamma": 0.0}
DECAY = {"penalty.name": "decay"}
SRIP = {"penalty.name": "srip", "penalty.gamma": 1e-2, "penalty.iterations": 2}
BYOL = {"method.name": "byol"}


def seeds(label, count, settings=(), **results):
    return [made_up(f"seed={i}, {label}", {**dict(settings), "seed": i}, **results) for i in range(count)]


def test_runs_that_differ_in_the_seed_alone_are_one_group_in_the_order_given():
    so, none = seeds("penalty=so", 3), seeds("penalty=none", 2, NONE)
    groups = groups_of([so[2], none[0], so[0], none[1], so[1]])
    assert [group.label for group in groups] == ["penalty=so", "penalty=none"]
    assert [list(group.by_seed) for group in groups] == [[2, 0, 1], [0, 1]]
    assert groups[0].runs == (so[2], so[0], so[1])
    assert groups[0].gamma == 1e-4
    assert "seed" not in groups[0].settings


def test_a_label_is_what_the_runs_have_in_common():
    def label(*labels):
        [group] = groups_of([made_up(text, {"seed": i}) for i, text in enumerate(labels)])
        return group.label

    assert label("SimCLR + SO 0.0001", "SimCLR + SO 0.0001") == "SimCLR + SO 0.0001"
    assert label("penalty=so, seed=0", "penalty=so, seed=1") == "penalty=so"
    assert label("a=1, seed=0, b=2", "a=1, seed=11, b=2") == "a=1, b=2"
    assert label("my first run", "my first try") == "my first"
    assert label("seed=0", "seed=1") == "simclr, so 0.0001"
    assert label("one", "two") == "simclr, so 0.0001"
    assert label("proseed=0") == "proseed=0"


def test_a_seed_counts_once_and_the_later_run_is_taken():
    first, second, again = made_up("run", {"seed": 0}), made_up("run", {"seed": 1}), made_up("run", {"seed": 0})
    runs = [first, second, again]
    [group] = groups_of(runs)
    assert list(map(id, group.runs)) == [id(again), id(second)]
    assert list(map(id, repeats_in(runs, [group]))) == [id(first)]
    assert repeats_in([first, first], groups_of([first, first])) == []


def test_runs_alike_with_labels_of_their_own_stay_apart():
    """One changes the code of a method, and compares."""
    groups = groups_of([made_up("before"), made_up("after")])
    assert [group.label for group in groups] == ["before", "after"]


def test_the_baseline_differs_in_the_penalty_alone():
    so, srip, none = made_up("so"), made_up("srip", SRIP), made_up("none", NONE)
    byol, byol_none = made_up("byol", BYOL), made_up("byol none", {**BYOL, **NONE})
    longer = made_up("longer", {"trainer.max_steps": 9})
    groups = groups_of([so, srip, byol, byol_none, none, longer])
    found = {group.label: baseline_of(group, groups) for group in groups}
    assert {label: base and base.label for label, base in found.items()} == {
        "so": "none",
        "srip": "none",
        "byol": "byol none",
        "byol none": None,
        "none": None,
        "longer": None,
    }
    assert [[group.label for group in family] for family in families_of(groups)] == [
        ["so", "srip", "none"],
        ["byol", "byol none"],
        ["longer"],
    ]


def test_of_two_baselines_the_one_measured_in_the_same_way_is_taken():
    groups = groups_of([made_up("so none", NONE), made_up("srip none", {**SRIP, **NONE}), made_up("srip", SRIP)])
    assert baseline_of(groups[2], groups).label == "srip none"


def test_the_control_is_the_decay_of_the_same_gamma_or_the_only_one():
    so, srip, none = made_up("so"), made_up("srip", SRIP), made_up("none", NONE)
    same, weaker = made_up("decay", DECAY), made_up("weaker", {**DECAY, "penalty.gamma": 1e-6})
    groups = groups_of([so, srip, none, same])
    assert [control_of(group, groups) for group in groups] == [groups[3], groups[3], None, None]
    groups = groups_of([so, srip, none, weaker, same])
    assert [control_of(group, groups) for group in groups] == [groups[4], None, None, None, None]


def test_prolonged_runs_of_several_seeds_are_one_group():
    def run(seed, prolongs):
        return made_up("run", {"seed": seed, "prolongs": prolongs})

    assert len(groups_of([run(0, "runs/a 600"), run(1, "runs/b 600")])) == 1
    assert len(groups_of([run(0, "runs/a 600"), run(1, "runs/b 500")])) == 2


def test_a_run_without_settings_is_a_group():
    bare = made_up("bare")
    bare.results["settings"] = {}
    [group] = groups_of([bare])
    assert (group.label, group.gamma, group.is_baseline, group.is_control) == ("bare", None, False, False)
