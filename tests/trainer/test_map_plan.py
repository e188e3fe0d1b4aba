"""The plan of a map: which runs it has, in which order, and words that are not for it."""

import pytest

from ortho_kernels.trainer.config import fingerprint, load_config
from ortho_kernels.trainer.config.map_plan import MapSettings, plan_map
from ortho_kernels.trainer.errors import TrainerError

CELLS = ["method=simclr,byol", "backbone=resnet18,resnet50", "penalty=so", "data=digits"]


def plan(*words, **settings):
    return plan_map(words, MapSettings(**settings))


def facts(run):
    config = run.config
    return config.penalty.name, config.penalty.gamma, config.optimizer.weight_decay, config.seed


def test_every_cell_has_its_gammas_and_what_they_have_to_beat():
    runs = plan(*CELLS, "penalty.gamma=1e-4,3.3e-4,1e-3,3.3e-3", "seed=0,1,2")
    assert len(runs) == 96
    assert list(dict.fromkeys(run.cell for run in runs)) == [
        f"method={method}, backbone={backbone}"
        for method in ("simclr", "byol")
        for backbone in ("resnet18", "resnet50")
    ]
    one = [facts(run) for run in runs if run.cell == "method=byol, backbone=resnet50" and run.config.seed == 1]
    assert one == [
        ("so", 0.0, 5e-4, 1),
        ("so", 1e-4, 5e-4, 1),
        ("so", 3.3e-4, 5e-4, 1),
        ("so", 1e-3, 5e-4, 1),
        ("so", 3.3e-3, 5e-4, 1),
        ("decay", 1e-6, 5e-4, 1),
        ("so", 0.0, 5e-5, 1),
        ("so", 0.0, 5e-3, 1),
    ]


def test_all_of_a_seed_is_done_before_the_next_one_begins():
    runs = plan(*CELLS, "penalty.gamma=1e-4", "seed=4,2")
    half = len(runs) // 2
    assert [run.config.seed for run in runs] == [4] * half + [2] * half
    assert [run.title for run in runs[:5]] == [
        "method=simclr, backbone=resnet18, penalty.gamma=0, seed=4",
        "method=simclr, backbone=resnet50, penalty.gamma=0, seed=4",
        "method=byol, backbone=resnet18, penalty.gamma=0, seed=4",
        "method=byol, backbone=resnet50, penalty.gamma=0, seed=4",
        "method=simclr, backbone=resnet18, penalty.gamma=0.0001, seed=4",
    ]


def test_few_words_do():
    """Without gammas the recipe's and the paper's steps around it; without seeds three."""
    runs = plan("experiment=quick/map")
    assert [facts(run) for run in runs if run.config.seed == 0] == [
        ("so", 0.0, 5e-4, 0),
        ("so", 6.7e-5, 5e-4, 0),
        ("so", 6.7e-4, 5e-4, 0),
        ("so", 6.7e-3, 5e-4, 0),
        ("decay", 6.7e-4, 5e-4, 0),
        ("so", 0.0, 5e-5, 0),
        ("so", 0.0, 5e-3, 0),
    ]
    assert {run.config.seed for run in runs} == {0, 1, 2}
    assert {run.cell for run in runs} == {""}
    assert {run.config.resume for run in runs} == {"auto"}


def test_its_runs_are_those_of_a_sweep():
    """The same words make the same run, by which finished runs are found."""
    runs = {run.title: run.config for run in plan("data=digits", "method=simclr", "penalty.gamma=1e-4", "seed=1")}
    own = ["data=digits", "method=simclr", "seed=1"]
    for title, words in {
        "penalty.gamma=0, seed=1": ["penalty=none"],
        "penalty.gamma=0.0001, seed=1": ["penalty=so", "penalty.gamma=1e-4"],
        "penalty=decay, penalty.gamma=1e-06, seed=1": ["penalty=decay"],
        "penalty.gamma=0, optimizer.weight_decay=0.005, seed=1": ["penalty=none", "optimizer.weight_decay=5e-3"],
    }.items():
        assert fingerprint(runs[title]) == fingerprint(load_config([*own, *words])), title


def test_controls_can_be_chosen():
    runs = plan("penalty.gamma=0,1e-4", "seed=0", decay=[1e-3, 2e-3], weight_decay=[3.0])
    assert [facts(run)[:3] for run in runs] == [
        ("so", 0.0, 5e-4),  # once, though it is asked for
        ("so", 1e-4, 5e-4),
        ("decay", 1e-3, 5e-4),
        ("decay", 2e-3, 5e-4),
        ("so", 0.0, 1.5e-3),
    ]


def test_penalties_share_a_cell_and_its_controls():
    runs = plan("penalty=so,srip", "penalty.gamma=1e-4", "penalty.include=[layer4.*]", "seed=0", weight_decay=[])
    assert [(run.config.penalty.name, run.config.penalty.gamma) for run in runs] == [
        ("so", 0.0),
        ("so", 1e-4),
        ("srip", 1e-4),
        ("decay", 1e-6),
    ]
    assert {run.cell for run in runs} == {""}
    assert all(run.config.penalty.include == ["layer4.*"] for run in runs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["penalty=none"], "A map varies the gamma of a penalty: give penalty=so or penalty=srip. The baseline and"),
        (["penalty=so,decay"], "A map varies the gamma of a penalty"),
        (["resume=auto"], "A map always goes on where it was cut off. Leave out resume."),
        (["title=mine"], "A map names its runs by what sets them apart. Leave out title."),
        (
            ["optimizer.weight_decay=0,1e-4"],
            "optimizer.weight_decay takes one value in a map, which tries multiples of it",
        ),
        (
            ["optimizer.weight_decay=0"],
            "optimizer.weight_decay=0 has no multiples: give optimizer.weight_decay=NUMBER, or",
        ),
        (
            ["sweep.launcher=submitit"],
            "A map shares out the time of this machine: give sweep.launcher=serial or joblib.",
        ),
        (["penalty.gamma=1e-4,-1"], "penalty.gamma must be at least 0; got -1.0."),
        (
            ["penalty.gamma=0"],
            "penalty.gamma=0 is the baseline, which every map has: give gammas above 0, or leave it out.",
        ),
        (
            ["experiment=quick/map", "backbone=resnet18,vit_tiny"],
            "The recipe sets backbone.width, and backbone=vit_tiny has no such option. Leave out backbone=vit_tiny, or",
        ),
        (["method.views=one"], "method.views must be one of two, asymmetric; got one."),
        (["penalty.gamma=1e-4,much"], "penalty.gamma: Value 'much'"),
        (["seed=0,1.5"], "seed: Value '1.5'"),
        (["method=simclr,byool"], "There is no method=byool. Did you mean byol?"),
    ],
)
def test_words_that_are_not_for_a_map(words, said):
    with pytest.raises(TrainerError) as raised:
        plan("data=digits", *words)
    assert said in str(raised.value)
