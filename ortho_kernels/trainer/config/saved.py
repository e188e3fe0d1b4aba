"""`config=FILE`: the config.yaml of a run, which is run again, with further words over it.

To Hydra the file is a recipe: words choose its parts, and its values stand over their defaults. A word `GROUP=NAME`
takes that part anew, with its defaults. A word `OPTION=VALUE` changes that option alone.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ortho_kernels import __version__

from ..engine.settings import TRAINERS, TrainerSettings
from ..errors import TrainerError, did_you_mean
from .groups import GROUPS, REGISTRIES
from .identity import flattened, plain

NAMED = (*REGISTRIES, "optimizer")  # groups whose choice a configuration names
OF_ONE_RUN = ("resume", "title", "note")  # what a configuration that is run again does not take over
VERSION = re.compile(r"# ortho_kernels (\S+)\n")


class Saved(NamedTuple):
    """What a config.yaml holds: options as nested dicts, and the version that wrote it."""

    path: Path
    version: str | None
    options: dict[str, Any]


def write_config(path: Path, config: DictConfig) -> None:
    """The version is a comment, and so no part of what a run is."""
    path.write_text(f"# ortho_kernels {__version__}\n{OmegaConf.to_yaml(plain(config))}", encoding="utf-8")


def read_config(path: Path) -> Saved:
    """Raises TrainerError for a file that is missing, broken, or no run's config.yaml. YAML is read without objects."""
    cure = "Give the config.yaml of a run's folder."
    try:
        text = path.read_text(encoding="utf-8")
        loaded = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError) as error:
        raise TrainerError(
            f"config={path} cannot be read ({getattr(error, 'strerror', None) or error}). {cure}"
        ) from None
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise TrainerError(f"config={path} is no YAML ({' '.join(str(error).split())}).") from None
    options: Any = {} if isinstance(loaded, ListConfig) else OmegaConf.to_container(loaded)
    if "defaults" in options or text.startswith("# @package"):
        raise TrainerError(f"config={path} is a recipe. Give experiment=NAME, or the config.yaml of a run's folder.")
    for group in NAMED:
        part = options.get(group)
        if not isinstance(part, dict) or not isinstance(part.get("name"), str):
            raise TrainerError(f"config={path} names no {group} ({group}.name). {cure}")
    version = VERSION.match(text)
    return Saved(path, version[1] if version else None, options)


def split_config(words: Sequence[str]) -> tuple[Saved | None, list[str]]:
    """The file that a word `config=FILE` names, and the other words."""
    named = [word for word in words if word.startswith("config=")]
    others = [word for word in words if word not in named]
    if not named:
        return None, others
    if len(named) > 1:
        raise TrainerError(f"{' and '.join(named)}: give one of them. With -m, config=FILE,FILE runs both.")
    if recipe := next((word for word in others if word.startswith("experiment=")), None):
        raise TrainerError(f"{named[0]} and {recipe} each describe a whole run: give one of them.")
    override = OverridesParser.create().parse_override(named[0])
    if override.is_sweep_override():
        raise TrainerError(f"{named[0]} names several files: give -m to run each of them.")
    file = override.value()
    if not isinstance(file, str) or not file:
        raise TrainerError(f"{named[0]}: give a file, such as config=runs/RUN/config.yaml.")
    return read_config(Path(file).expanduser()), others


def group_words(words: Sequence[str]) -> dict[str, str]:
    """The words that choose a part, by their group."""
    return {word.partition("=")[0]: word for word in words if word.partition("=")[0] in GROUPS}


def parts_of(saved: Saved, words: Sequence[str]) -> list[str]:
    """Words for the parts of the file that the other words leave as they are."""
    replaced = group_words(words)
    return [f"{group}={saved.options[group]['name']}" for group in NAMED if group not in replaced]


def values_over(saved: Saved, words: Sequence[str], defaults: DictConfig) -> dict[str, Any]:
    """What the file sets over the `defaults` of its parts, where the words do not take another part.

    Raises TrainerError for options that there are no longer. Prints those that are new, which keep their defaults.
    """
    chosen = group_words(words)
    left_out = {*OF_ONE_RUN, *chosen} - {"trainer"}
    values = {key: value for key, value in saved.options.items() if key not in left_out}
    known = {key: value for key, value in plain(defaults).items() if key not in left_out}
    maps = list(_maps(defaults))
    ours, theirs = _options(known, maps), _options(values, maps)
    if gone := [key for key in theirs if key not in ours]:
        listed = "\n  ".join(f"{key}.{did_you_mean(key, list(ours))}" for key in gone)
        raise TrainerError(
            f"{_written_by(saved)} It sets options that there are not:\n  {listed}\n"
            "Rename or remove them in a copy of the file, and give that copy."
        )
    if new := [f"{key}={value}" for key, value in ours.items() if key not in theirs]:
        _print_once(f"{_written_by(saved)} New options keep their defaults: {', '.join(new)}.")
    if "trainer" in chosen:  # ddp, cpu, ...: another value of few options, not another part
        variant = TRAINERS.get(chosen["trainer"].partition("=")[2], TrainerSettings())
        usual = vars(TrainerSettings())
        values["trainer"] = {
            key: value for key, value in values.get("trainer", {}).items() if getattr(variant, key) == usual[key]
        }
    if any(word.startswith("init=") for word in words):
        values.pop("init_sha256", None)  # of the weights that this word replaces
    return values


def _maps(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """The options that hold what another library reads: any keys may stand in them."""
    for name in map(str, config):
        child = config._get_node(name)
        if isinstance(child, DictConfig) and not child._is_none():
            if OmegaConf.get_type(child) is dict:
                yield f"{prefix}{name}"
            else:
                yield from _maps(child, f"{prefix}{name}.")


def _options(tree: dict[str, Any], maps: Sequence[str]) -> dict[str, Any]:
    """The options by their dotted keys; a map of another library is one."""
    return {
        next((name for name in maps if f"{key}.".startswith(f"{name}.")), key): value
        for key, value in flattened(tree).items()
    }


def _written_by(saved: Saved) -> str:
    writer = f"ortho_kernels {saved.version}" if saved.version else "an unknown version"
    return f"config={saved.path} was written by {writer}; this is {__version__}."


@cache
def _print_once(text: str) -> None:
    """A comparison and a sweep read a file for each of their runs."""
    print(text, flush=True)
