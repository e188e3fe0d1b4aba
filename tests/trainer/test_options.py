"""Options: each has one line of meaning, and a value out of its range is answered in one line."""

import math
from dataclasses import dataclass

import pytest
from omegaconf import DictConfig, OmegaConf

from ortho_kernels.trainer.config import GROUPS, load_config
from ortho_kernels.trainer.config.help import WIDTH, help_text
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.options import at_least, between, inside, more_than, one_of, option, option_of


@pytest.mark.parametrize(
    ("values", "taken", "refused", "said"),
    [
        (at_least(2), [2, 1e9], [1, math.inf, math.nan], "at least 2"),
        (more_than(0), [1e-30], [0, -1, math.nan], "more than 0"),
        (more_than(0, at_most=1), [1e-30, 1], [0, 1.1], "more than 0 and at most 1"),
        (at_least(0, below=1), [0, 0.9], [-0.1, 1, math.nan], "at least 0 and less than 1"),
        (inside(0, 1), [1e-30, 0.9], [0, 1, math.nan], "more than 0 and less than 1"),
        (between(0, 0.5), [0, 0.5], [-0.1, 0.6, math.nan], "between 0 and 0.5"),
        (one_of("two", "four"), ["two"], ["three"], "one of two, four"),
    ],
)
def test_what_values_an_option_takes(values, taken, refused, said):
    assert all(value in values for value in taken)
    assert not any(value in values for value in refused)
    assert str(values) == said


@dataclass
class Base:
    name: str = "base"
    rate: float = option(0.1, "how fast", more_than(0))
    sizes: list[int] = option([1, 2], "how large", at_least(1))


@dataclass
class Changed(Base):
    rate: float = 0.2


def test_a_subclass_that_changes_a_default_keeps_the_rest():
    assert Changed().rate == 0.2
    assert option_of(Changed, "rate") is option_of(Base, "rate")
    assert option_of(Base, "name").meaning == ""


def test_lists_are_not_shared():
    Base().sizes.append(3)
    assert Base().sizes == [1, 2]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("init=", "init= is empty: give a value, or init=null where it may have none."),
        ("penalty.gamma=-1", "penalty.gamma must be at least 0; got -1.0."),
        ("penalty.gamma=nan", "penalty.gamma must be a finite number; got nan."),
        ("penalty.side=left", "penalty.side must be one of small, large, rows, cols; got left."),
        ("backbone.width=0", "backbone.width must be at least 1; got 0."),
        ("backbone.stem=small", "backbone.stem must be one of cifar, imagenet; got small."),
        ("trainer.batch_size=1", "trainer.batch_size must be at least 2; got 1."),
        ("trainer.max_steps=0", "trainer.max_steps must be at least 1; got 0."),
        ("trainer.precision=17", "trainer.precision must be one of 32-true, 64-true, bf16-mixed, 16-mixed; got 17."),
        (
            "trainer.accelerator=abacus",
            "trainer.accelerator must be one of auto, cpu, gpu, cuda, mps; got abacus.",
        ),
        ("trainer.clip=0", "trainer.clip must be more than 0; got 0.0."),
        ("data.views.asymmetric.blur=[1,2]", "data.views.asymmetric.blur must be between 0 and 1; got 2.0."),
        ("data.views.min_area=0", "data.views.min_area must be more than 0 and at most 1; got 0.0."),
        ("method.views=three", "method.views must be one of two, asymmetric; got three."),
        ("optimizer.lr=inf", "optimizer.lr must be a finite number; got inf."),
        ("optimizer.scaling=cubic", "optimizer.scaling must be one of linear, sqrt, none; got cubic."),
        ("optimizer.norm_lr=-1", "optimizer.norm_lr must be at least 0; got -1.0."),
        ("evaluation.network=both", "evaluation.network must be one of student, teacher, ema; got both."),
        ("evaluation.neighbors=0", "evaluation.neighbors must be at least 1; got 0."),
        ("evaluation.test_images=1", "evaluation.test_images must be at least 2; got 1."),
        ("sweep.jobs=0", "sweep.jobs must be at least 1; got 0."),
        ("sweep.launcher=rocket", "sweep.launcher must be one of serial, joblib, submitit; got rocket."),
    ],
)
def test_a_value_out_of_range_is_answered_in_one_line(word, said):
    with pytest.raises(TrainerError) as caught:
        load_config([word])
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=nnclr", "method.queue=0"], "method.queue must be at least 1"),
        (["backbone=vit_tiny", "backbone.positions=random"], "backbone.positions must be one of learned, sincos"),
        (["data=imagefolder", "data.corrupt=eat"], "data.corrupt must be one of stop, skip; got eat"),
    ],
)
def test_the_range_is_that_of_the_class_that_is_chosen(words, said):
    with pytest.raises(TrainerError, match=said):
        load_config(words)
    load_config(["method=swav", "method.queue=0"])


def test_options_that_another_library_reads_have_no_range_here():
    load_config(["backbone=timm", "backbone.options={depth: 0, width: [a]}", "sweep.slurm={nodes: 0}"])


def without_meaning(config, prefix=""):
    settings = OmegaConf.get_type(config)
    for name, value in config.items():
        if isinstance(value, DictConfig) and OmegaConf.get_type(value) is not dict:
            yield from without_meaning(value, f"{prefix}{name}.")
        elif not option_of(settings, name).meaning and name != "name":
            yield f"{prefix}{name}"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group]])
def test_every_option_has_a_meaning(group, name):
    assert list(without_meaning(load_config([f"{group}={name}"]))) == []


def test_help_lists_every_option_with_its_type_range_and_meaning():
    text = help_text(["method=byol", "method.momentum=0.9"])
    assert max(map(len, text.splitlines())) <= WIDTH
    said = " ".join(text.split())
    for line in (
        "method.momentum=0.9 momentum of the teacher at the first step (number, between 0 and 1)",
        "method.hidden=4096 width of the projector's hidden layer (integer, at least 1)",
        "trainer.max_steps=null optimizer steps; takes the place of max_epochs (integer, at least 1, or null)",
        "data.views.asymmetric.blur=[1.0,0.1] probabilities of a blur (list of numbers, each between 0 and 1)",
        "optimizer.decay_norms=false norms, biases, tokens and position embeddings decay too (true or false)",
        "optimizer.scaling=linear how the rate grows with the images of a step (one of linear, sqrt, none)",
        "penalty.include=null name patterns of weights, such as 'layer4.*'; all by default (list of texts, or null)",
        "sweep.slurm={} what submitit takes",
    ):
        assert line in said
