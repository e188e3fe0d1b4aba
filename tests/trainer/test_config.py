"""Configurations: every option is typed, every mistake is answered with the nearest right word."""

import pytest
from omegaconf import MISSING, OmegaConf

from ortho_kernels.trainer.config import (
    NOT_PART_OF_A_RUN,
    combinations,
    differences,
    fingerprint,
    flattened,
    identity,
    load_config,
)
from ortho_kernels.trainer.errors import TrainerError


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("penalty.gama=1", "no option penalty.gama. Did you mean penalty.gamma?"),
        ("sed=3", "no option sed. Did you mean seed?"),
        ("backbone.patch=4", "no option backbone.patch."),  # of the other backbone
        ("method=byool", "no method=byool. Did you mean byol? Valid: barlow_twins, byol, dcl,"),
        ("experiment=quick/fashion_mist", "Did you mean quick/fashion_mnist?"),
        ("experiment=paper/cifar100/byol_resnet81", "Did you mean paper/cifar100/byol_resnet18?"),
        ("optimizer=adam", "no optimizer=adam. Did you mean adamw? Valid: sgd, lars, adamw"),
        ("backbone=resnet20", "no backbone=resnet20. Did you mean resnet50?"),
        ("penalty=soo", "no penalty=soo. Did you mean so? Valid: none, so, srip, decay."),
        ("method.momentun=0.9", "no option method.momentun. Did you mean method.momentum?"),
        ("optimizer.wieght_decay=0", "no option optimizer.wieght_decay. Did you mean optimizer.weight_decay?"),
        ("data.views.grey=0.5", "no option data.views.grey. Did you mean data.views.gray?"),
        ("evaluation.neighbours=5", "no option evaluation.neighbours. Did you mean evaluation.neighbors?"),
        ("backbone.stm=cifar", "no option backbone.stm. Did you mean backbone.stem?"),
        ("method.queue=many", "no option method.queue"),  # of other methods
        ("trainer.batch_size=many", "trainer.batch_size: Value 'many'"),
        ("penalty.gamma=high", "penalty.gamma: Value 'high'"),
        ("sweep.slrum.timeout_min=3", "no option sweep.slrum.timeout_min. Did you mean sweep.slurm?"),
        ("sweep.slurm=3", "sweep.slurm: Cannot assign int"),
        ("backbone.options.img_size=32", "no option backbone.options.img_size."),  # of other backbones
        ("metod=byol", "Did you mean method"),
        ("justaword", "justaword"),
        ("penalty.kind=so", "no option penalty.kind. Did you mean penalty=so?"),
        ("=3", "Cannot read '=3'. Options are words of the form KEY=VALUE"),
        ("", "Cannot read ''."),
        ("+foo=1", "no option +foo."),
        ("hydra.run.dir=x", "no option hydra.run.dir."),
        ("data.root='a'b", "need quotes around it that reach the program: 'data.root=\"'a'b\"'"),
        ("data.root=a,b", "One value with a comma needs quotes: 'data.root=\"a,b\"'"),
        ("data.root=bücher,a", "need quotes around it that reach the program: 'data.root=\"bücher,a\"'"),
        ("optimizer.lr=0.1(", "optimizer.lr: Value '0.1('"),
        ("seed=", "seed"),
    ],
)
def test_mistakes_are_answered_in_one_breath(word, said):
    with pytest.raises(TrainerError) as caught:
        load_config([word])
    message = str(caught.value)
    assert said in message
    assert "Traceback" not in message
    assert "Hydra" not in message


@pytest.mark.parametrize(
    "text", ["x-{000..031}.tar", "x-{a,b}-{0..3}.tar", "图 片/深", "a(b)=c", "it's", "C:\\é", "x-[01].tar"]
)
def test_texts_that_hydra_cannot_read_are_taken_as_they_are(text):
    assert load_config(["data=imagefolder", f"data.root={text}"]).data.root == text
    [(_, first), (_, second)] = combinations(["data=imagefolder", f"data.root={text}", "seed=0,1"])
    assert (load_config(first).data.root, load_config(second).seed) == (text, 1)


def test_the_fingerprint_is_that_of_what_decides_the_result():
    base = fingerprint(load_config([]))
    assert fingerprint(load_config(["resume=auto", "runs=elsewhere", "title=mine"])) == base
    assert fingerprint(load_config(["seed=1"])) != base
    assert fingerprint(load_config(["penalty.gamma=1e-5"])) != base


@pytest.mark.parametrize(
    ("words", "gamma"),
    [(["penalty=so"], "1e-6"), (["penalty=srip"], "1e-3"), (["penalty=srip", "backbone=wrn28_2"], "1e-4")],
)
def test_a_run_is_the_same_whether_its_gamma_is_given_or_the_papers(words, gamma):
    default, given = load_config(words), load_config([*words, f"penalty.gamma={gamma}"])
    assert identity(default)["penalty"]["gamma"] == float(gamma)
    assert fingerprint(default) == fingerprint(given)


@pytest.mark.parametrize("key", NOT_PART_OF_A_RUN)
def test_what_decides_nothing_is_an_option_and_no_part_of_a_run(key):
    config = load_config(["data=imagefolder"])
    assert OmegaConf.select(config, key, default=MISSING) != MISSING
    assert not [kept for kept in flattened(identity(config)) if kept == key or kept.startswith(f"{key}.")]


def test_differences_name_the_keys():
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "d": 4}) == [
        "a.b: 3 -> 1",
        "c: absent -> 2",
        "d: 4 -> absent",
    ]
    assert differences({"a": None}, {"a": None}) == []


def test_flattened_keys_are_dotted():
    assert flattened({"a": {"b": {"c": 1}}, "d": 2, "e": {}}) == {"a.b.c": 1, "d": 2, "e": {}}
