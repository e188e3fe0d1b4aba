"""The configuration: put together by Hydra from what the trainer's parts declare and from recipes.

Every option is declared, with its type and default, beside the code that it sets (`BYOL.Settings`, `ViewSettings`).
Recipes are YAML files under `files/`.
"""

from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..data.huggingface import HuggingFace
from ..engine.penalties import choose_gamma
from ..errors import TrainerError
from ..registry import settings_of
from .check import check
from .evaluation_data import evaluation_source
from .explain import check_form, explain
from .groups import GROUPS, REGISTRIES, Settings
from .quoting import as_readable
from .recipes import paper_recipes
from .saved import Saved, group_words, parts_of, split_config, values_over

CONFIG_MODULE = f"{__package__}.files"


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


def register_outside(word: str) -> None:
    """Makes the options of a class from outside the trainer, which the word chooses, known to Hydra."""
    override = OverridesParser.create().parse_override(word)
    group, name = override.key_or_group, override.value()
    if group not in REGISTRIES or not isinstance(name, str) or name in GROUPS[group]:
        return
    settings = settings_of(REGISTRIES[group][name])
    try:
        node = _with_open_dicts(settings)
    except OmegaConfBaseException as error:
        said = str(error).partition("\n")[0]
        raise TrainerError(f"{group}={name}: {settings.__qualname__} holds what no option can be ({said}).") from None
    node.name = name
    ConfigStore.instance().store(group=group, name=name, node=node)


def register_recipe(word: str) -> None:
    """Makes the recipe of an `experiment=paper/...` word known to Hydra, and forgets the one before: Hydra copies all
    that it knows for every configuration, and would take twice as long with all recipes."""
    group, _, name = word.partition("=")
    if group == "experiment" and name in paper_recipes():
        folder, _, last = f"experiment/{name}".rpartition("/")
        known = ConfigStore.instance()
        known.repo.pop("experiment", None)  # all of it: other recipes are files
        known.store(group=folder, name=last, node=paper_recipes()[name], package="_global_")


def register_saved(saved: Saved, words: Sequence[str]) -> list[str]:
    """Makes the file of a word `config=FILE` known to Hydra as a recipe; returns the words that choose it."""
    parts = parts_of(saved, words)
    try:
        for word in parts:
            register_outside(word)
        defaults = compose("config", overrides=[*parts, *group_words(words).values()])
    except (HydraException, OmegaConfBaseException) as error:
        raise TrainerError(f"config={saved.path}: {explain(error, parts)}") from None
    except TrainerError as error:
        raise TrainerError(f"config={saved.path}: {error}") from None
    known = ConfigStore.instance()
    known.repo.pop("experiment", None)
    known.store(group="experiment", name="saved", node=values_over(saved, words, defaults), package="_global_")
    return [*parts, "experiment=saved"]


def load_config(words: Sequence[str]) -> DictConfig:
    """The configuration that `key=value` words describe, or an error that names the nearest valid word."""
    GlobalHydra.instance().clear()
    words = overrides = list(map(as_readable, words))
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        try:
            saved, overrides = split_config(words)
            for word in overrides:
                check_form(word)
                register_recipe(word)
                register_outside(word)
            if saved is not None:
                overrides = [*register_saved(saved, overrides), *overrides]
            config = compose("config", overrides=overrides)
            _check_names(config)
            given = any(word.startswith("penalty.gamma=") for word in overrides)
            # A number, whatever it comes from: it is part of the run's identity.
            config.penalty.gamma = choose_gamma(config.penalty, config.backbone, config.gammas, given)
        except (HydraException, OmegaConfBaseException) as error:
            raise TrainerError(explain(error, overrides)) from None
    check(config)
    evaluation_source(config)
    return config


def _check_names(config: DictConfig) -> None:
    """By its name a part is found again, when the run is resumed or its encoder loaded."""
    for group, registry in REGISTRIES.items():
        name = config[group].name
        settings: Any = OmegaConf.get_type(config[group])
        if settings is HuggingFace and name != HuggingFace.name:
            raise TrainerError(f"data.name={name}: give the name of a data set by data.dataset={name}.")
        if not issubclass(settings, settings_of(registry[name])):
            raise TrainerError(f"{group}.name={name}: the name goes with the choice. Give {group}={name}.")


def combinations(words: Sequence[str]) -> list[tuple[list[str], list[str]]]:
    """Every choice among words with several values, as (the words that vary, all words)."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(map(as_readable, words)))
    except HydraException as error:
        raise TrainerError(explain(error, words)) from None
    varying = {override.get_key_element() for override in parsed if override.is_sweep_override()}
    [choices] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    chosen = [[word.replace("\\:", ":") for word in choice] for choice in choices]  # as they were given
    return [([word for word in choice if word.partition("=")[0] in varying], choice) for choice in chosen]


register()
