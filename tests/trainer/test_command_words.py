"""The words of commands that look at finished runs: paths, and options of a dataclass."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ortho_kernels.trainer.config.command_words import asks_for_help, parse_words, words_help
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.options import at_least, more_than, one_of, option


@dataclass
class Inner:
    name: str = "knn"
    neighbors: int = option(20, "neighbors that vote", at_least(1))


@dataclass
class Settings:
    protocol: list[str] = option(["knn"], "protocols")
    decays: list[float] = option([1.0], "decays", at_least(0))
    data: str | None = option(None, "data set")
    data_options: dict[str, Any] = option({}, "its options")
    labels: float = option(1.0, "share of the labels", more_than(0, 1))
    network: str | None = option(None, "network", one_of("student", "teacher"))
    knn: Inner = field(default_factory=Inner)


def test_words_without_an_option_are_paths_in_their_order():
    paths, settings = parse_words(["b", "a", "sweeps/seed=1", "b"], Settings)
    assert paths == [Path("b"), Path("a"), Path("sweeps/seed=1")]
    assert settings == Settings()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["labels=0.1"], Settings(labels=0.1)),
        (["labels=0.1", "labels=1"], Settings(labels=1.0)),
        (["protocol=knn"], Settings(protocol=["knn"])),
        (["protocol=knn,my_module:Mine"], Settings(protocol=["knn", "my_module:Mine"])),
        (["decays=0,1e-3"], Settings(decays=[0.0, 1e-3])),
        (["decays=[0,1e-3]"], Settings(decays=[0.0, 1e-3])),
        (["data_options={root: /a b/c, size: 8}"], Settings(data_options={"root": "/a b/c", "size": 8})),
        (["data_options.root=x-{000..031}.tar"], Settings(data_options={"root": "x-{000..031}.tar"})),
        (["knn.neighbors=200"], Settings(knn=Inner(neighbors=200))),
        (["network=null"], Settings()),
    ],
)
def test_options_become_fields(words, expected):
    assert parse_words(words, Settings) == ([], expected)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("protocl=knn", "There is no option protocl. Did you mean protocol?"),
        ("knn.neighbor=3", "There is no option knn.neighbor. Did you mean knn.neighbors?"),
        ("knn=3", "There is no option knn."),
        ("knn.name=x", "There is no option knn.name."),
        ("+labels=1", "There is no option +labels. Did you mean labels?"),
        ("--labels=1", "There is no option --labels."),
        ("labels=few", "labels: Value 'few'"),
        ("labels=2", "labels must be more than 0 and at most 1; got 2"),
        ("labels=nan", "labels must be a finite number"),
        ("labels=0.1,1", "labels takes one value; got 0.1,1"),
        ("labels=", "labels= is empty"),
        ("decays=", "decays= is empty"),
        ("decays=1,-1", "decays must be at least 0; got -1"),
        ("network=both", "network must be one of student, teacher; got both"),
        ("data_options=3", "data_options: Cannot assign int"),
        ("data_options={root: [", "Cannot read data_options={root: [."),
    ],
)
def test_wrong_words_are_named(word, said):
    with pytest.raises(TrainerError) as caught:
        parse_words(["run", word], Settings)
    assert said in str(caught.value)


def test_help_lists_the_options_with_what_they_take():
    assert asks_for_help(["run", "--help"])
    assert not asks_for_help(["run", "labels=1"])
    text = words_help("How to use it.\n", Settings)
    assert text.startswith("How to use it.\n\nOptions:\n")
    assert "labels=1.0" in text
    assert "share of the labels (number, more than 0 and at most 1)" in text
    assert "knn.neighbors=20" in text
