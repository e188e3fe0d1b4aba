"""Every option can be given in words, and every word that help, errors and comments name is one."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from ortho_kernels import trainer
from ortho_kernels.trainer.config import GROUPS, Settings, combinations, flattened, load_config, plain
from ortho_kernels.trainer.config.help import help_text
from ortho_kernels.trainer.errors import TrainerError

SOURCES = sorted(Path(trainer.__file__).parent.rglob("*.py"))
OPTIONS = [(group, name) for group, options in GROUPS.items() for name in options]
ROOTS = "|".join(Settings.__dataclass_fields__)
# `data.root=FOLDER`, `method=byol`, `backbone.options={img_size: 32}`, and keys alone: `optimizer.lr`.
WORD = re.compile(rf"(?<![\w.])((?:{ROOTS})(?:\.\w+)*)=(\{{.*?\}}|[^\s{{,;:()'\"`|]*[^\s{{,;:()'\"`|.])")
KEY = re.compile(rf"(?<![\w./])((?:{ROOTS})(?:\.[a-z_]+)+)(?![\w.]*[/(=])")
# What stands for a value of the user's, and an example of it.
PLACEHOLDER = re.compile(r"[A-Z]+|VALUE")
EXAMPLES = {"data.root": "pictures", "data.classes": "classes.txt"}
# Of modules, an old option, a file.
NO_OPTIONS = {"method.encoder", "method.ema", "method.teacher", "penalty.kind", "penalty.start", "sweep.csv"}


def texts(path):
    """The strings of a Python file; what an f-string puts in is VALUE."""
    tree = ast.parse(path.read_text())
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


@cache
def settings_of(*words):
    return flattened(plain(load_config(words)))


def composes(key, value):
    """Whether some option of the key's group takes the value, or its own where a placeholder stands."""
    group, _, of_group = key.partition(".")
    options = [f"{group}={name}" for name in GROUPS[group]] if of_group and group in GROUPS else ["seed=0"]
    return any(_takes(option, key, value) for option in options if key in settings_of(option) or key in GROUPS)


def _takes(option, key, value):
    if PLACEHOLDER.fullmatch(value):
        value = EXAMPLES.get(key) or (next(iter(GROUPS[key])) if key in GROUPS else spelled(settings_of(option)[key]))
    try:
        load_config([option, f"{key}={value}"])
        return True
    except TrainerError:
        return False


def spelled(value):
    """A value as a word has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}'"
    return str(value).replace("'", "")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_can_be_given_in_words(group, option):
    chosen = load_config([f"{group}={option}"])
    assert chosen[group].get("name", option) == option or group == "penalty"
    words = {key: spelled(value) for key, value in flattened(plain(chosen)).items()}
    assert load_config([f"{group}={option}", *[f"{key}={value}" for key, value in words.items()]]) == chosen


def mentioned(pattern):
    return sorted({match for path in SOURCES for text in texts(path) for match in pattern.findall(text)})


def test_every_word_that_the_source_names_composes():
    words = mentioned(WORD)
    assert ("data.root", "FOLDER") in words
    assert ("trainer.precision", "16-mixed") in words
    assert [f"{key}={value}" for key, value in words if not composes(key, value)] == []


def test_every_key_that_the_source_names_is_one():
    keys = mentioned(KEY)
    assert "optimizer.lr" in keys
    known = {key for group, name in OPTIONS for key in settings_of(f"{group}={name}")}
    branches = {key.rpartition(".")[0] for key in known}
    assert set(keys) - known - branches == NO_OPTIONS


@pytest.mark.parametrize("line", [line for line in help_text([]).splitlines() if re.match(r"  (-m )?\w+=\w", line)])
def test_every_line_of_the_help_composes(line):
    words = [word for word in line.split() if "=" in word]
    for _, chosen in combinations([re.sub("=[A-Z]+$", "=pictures", word) for word in words]):
        load_config(chosen)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["backbone=timm", "backbone.options={img_size: 32, depth: 1}"], {"img_size": 32, "depth": 1}),
        (["backbone=timm", "backbone.options.img_size=32"], {"img_size": 32}),
        (["backbone.options.image_size=32", "backbone=torchvision"], {"image_size": 32}),
    ],
)
def test_options_of_a_network_can_be_given_whole_or_one_by_one(words, expected):
    assert load_config(words).backbone.options == expected


@pytest.mark.parametrize(
    "words",
    [
        ["sweep.slurm={timeout_min: 600, slurm_partition: gpu}"],
        ["sweep.slurm.timeout_min=600", "sweep.slurm.slurm_partition=gpu"],
    ],
)
def test_options_of_slurm_can_be_given_whole_or_one_by_one(words):
    assert load_config(words).sweep.slurm == {"timeout_min": 600, "slurm_partition": "gpu"}


def test_options_of_other_libraries_can_vary_in_a_sweep():
    choices = combinations(["backbone=timm", "backbone.options.depth=1,2"])
    assert [load_config(words).backbone.options.depth for _, words in choices] == [1, 2]
