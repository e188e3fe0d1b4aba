"""The configuration: its types, how it is put together, and what to say when it can't be.

Every option is declared, with its type and default, beside the code that it sets (`BYOL.Settings`, `ViewSettings`);
here they become Hydra's groups. Recipes are YAML files under `configs/`.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .backbones import BACKBONES
from .data import SOURCES
from .errors import TrainerError
from .evaluation import EvaluationSettings
from .launchers import SweepSettings
from .methods import METHODS
from .optimizers import OPTIMIZERS
from .penalties import PENALTIES, chosen_gamma
from .recipes import paper_recipes
from .trainer_settings import TRAINERS, TrainerSettings

CONFIG_MODULE = "ortho_kernels.trainer.configs"
# What can't change a run's outcome: its place and name, how much of it is said and saved, and who does the work.
# All others are part of a run. The batch and the steps decide what is computed. Device, precision, processes, memory
# format and compiler decide how sums are rounded. Where pictures are decoded decides when a broken one is met.
NOT_PART_OF_A_RUN = (
    "resume",
    "runs",
    "title",
    "note",
    "sweep",
    "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
    "trainer.log_every",
    "trainer.tensorboard",
    "trainer.threads",
    "trainer.timeout",
    "trainer.wandb",
    "trainer.workers",
)


@dataclass
class Settings:
    """The root: one option of each group, and these."""

    method: Any = MISSING
    data: Any = MISSING
    backbone: Any = MISSING
    penalty: Any = MISSING
    optimizer: Any = MISSING
    trainer: TrainerSettings = MISSING
    evaluation: EvaluationSettings = MISSING
    seed: int = 0
    resume: str | None = None  # auto, or a run's folder
    runs: str = "runs"  # the folder that holds the runs
    title: str | None = None  # what reports call the run
    note: str | None = None  # what reports say about it
    sweep: SweepSettings = field(default_factory=SweepSettings)


GROUPS: dict[str, dict[str, Any]] = {
    "method": {name: method.Settings for name, method in METHODS.items()},
    "data": {name: source.settings for name, source in SOURCES.items()},
    "backbone": {name: backbone.settings for name, backbone in BACKBONES.items()},
    "penalty": dict(PENALTIES),
    "optimizer": dict(OPTIMIZERS),
    "trainer": dict(TRAINERS),
    "evaluation": {"default": EvaluationSettings},
}


def register() -> None:
    """Makes the dataclasses known to Hydra."""
    store = ConfigStore.instance().store
    store(name="settings", node=_with_open_dicts(Settings))
    for group, options in GROUPS.items():
        for name, node in options.items():
            store(group=group, name=name, node=_with_open_dicts(node))


def _with_open_dicts(settings: Any) -> DictConfig:
    """The options as OmegaConf's node. Hydra closes all of them to unknown keys; dicts that another library reads, such
    as backbone.options, take any."""

    def open_dicts(node: DictConfig) -> None:
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig) and OmegaConf.get_type(child) is dict:
                OmegaConf.set_struct(child, False)
            elif isinstance(child, DictConfig):
                open_dicts(child)

    root = OmegaConf.structured(settings)
    open_dicts(root)
    return root


def register_recipe(word: str) -> None:
    """Makes the recipe of an `experiment=paper/...` word known to Hydra, and forgets the one before: Hydra copies all
    that it knows for every configuration, and would take twice as long with all recipes."""
    group, _, name = word.partition("=")
    if group == "experiment" and name in paper_recipes():
        folder, _, last = f"experiment/{name}".rpartition("/")
        known = ConfigStore.instance()
        known.repo.pop("experiment", None)  # all of it: other recipes are files
        known.store(group=folder, name=last, node=paper_recipes()[name], package="_global_")


def option_groups() -> dict[str, list[str]]:
    """The groups with more than one option, and the recipes."""
    recipes = Path(__file__).parent / "configs" / "experiment"
    names = sorted(path.relative_to(recipes).with_suffix("").as_posix() for path in recipes.rglob("*.yaml"))
    names += paper_recipes()
    return {name: list(options) for name, options in GROUPS.items() if len(options) > 1} | {"experiment": names}


def load_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration that `key=value` words describe, or an error that names the nearest valid word."""
    GlobalHydra.instance().clear()
    for word in overrides:
        register_recipe(word)
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        try:
            config = compose("config", overrides=list(overrides))
            given = any(word.startswith("penalty.gamma=") for word in overrides)
            # A number, whatever it comes from: it is part of the run's identity.
            config.penalty.gamma = chosen_gamma(config.penalty, config.backbone, given)
        except (HydraException, OmegaConfBaseException) as error:
            raise TrainerError(_explained(error, overrides)) from None
    return config


def combinations(words: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Every choice among words with several values, as (the words that vary, all words)."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise TrainerError(_explained(error, words)) from None
    varying = {override.get_key_element() for override in parsed if override.is_sweep_override()}
    [choices] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [([word for word in choice if word.partition("=")[0] in varying], list(choice)) for choice in choices]


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as nested dicts of plain values."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def identity(config: DictConfig) -> dict[str, Any]:
    """What makes a run the run that it is."""
    return part_of_a_run(plain(config))


def part_of_a_run(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The nested dicts without the options that decide nothing."""
    return {
        key: part_of_a_run(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in tree.items()
        if f"{prefix}{key}" not in NOT_PART_OF_A_RUN
    }


def fingerprint(config: DictConfig) -> str:
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The keys in which two configurations differ, as `key: theirs -> ours`."""
    left, right = flattened(theirs), flattened(ours)
    return [
        f"{key}: {left.get(key, 'absent')} -> {right.get(key, 'absent')}"
        for key in sorted(left.keys() | right.keys())
        if left.get(key, MISSING) != right.get(key, MISSING)
    ]


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys. An empty dict is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        is_branch = isinstance(value, dict) and value
        flat |= flattened(value, f"{prefix}{key}.") if is_branch else {f"{prefix}{key}": value}
    return flat


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    causes = [str(e) for e in (error, error.__cause__) if e is not None]
    said = "\n".join(causes)
    if match := re.search(r"Could not override '([^']+)'", said):
        key = match[1]
        return f"There is no option {key}.{_nearest(key, _known_keys(overrides))}"
    if match := re.search(r"In '[^']*': Could not find '([^']+)'", said):
        group, _, option = match[1].partition("/")
        valid = [*GROUPS.get(group, []), *option_groups().get(group, [])]
        return f"There is no {group}={option}.{_nearest(option, valid)} Valid: {', '.join(dict.fromkeys(valid))}."
    if match := re.search(r"No match in the defaults list", said):
        return said.splitlines()[0]
    if "full_key" in said:
        key = re.search(r"full_key: (\S+)", said)
        return f"{key[1] if key else 'An option'}: {causes[-1].splitlines()[0]}"
    if "Ambiguous value" in said:
        word = said.splitlines()[0].rpartition(" ")[2].strip("'")
        return (
            f"'{word}' names several values: give -m to run each of them. "
            f"One value with a comma needs quotes: {_with_quotes(word)}."
        )
    unreadable = next((word for word in overrides if _is_unreadable(word)), None)
    if unreadable is not None:
        hint = (
            " Brackets, equals signs and letters with accents in a value need quotes that reach the program: "
            f"{_with_quotes(unreadable)}."
        )
        return (
            f"Cannot read {unreadable}. Options are words of the form KEY=VALUE; --help lists them."
            f"{hint if unreadable.partition('=')[2] else ''}"
        )
    return f"Cannot read the options ({said.splitlines()[0]}). They are words of the form KEY=VALUE; --help lists them."


def _is_unreadable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return True
    return False


def _with_quotes(word: str) -> str:
    """As a shell takes it."""
    key, _, value = word.partition("=")
    return f"'{key}=\"{value}\"'"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """All option names of the configuration that the readable overrides describe."""
    groups = [word for word in overrides if re.fullmatch(r"\w+=[\w/]+", word)]
    for words in (groups, []):
        try:
            return [*flattened(plain(compose("config", overrides=words))), *Settings.__dataclass_fields__]
        except (HydraException, OmegaConfBaseException):
            continue
    return list(Settings.__dataclass_fields__)


def _nearest(word: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


register()
