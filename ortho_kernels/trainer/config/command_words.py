"""The words of a command that looks at finished runs: their folders, and `key=value` for its options.

    paths, settings = parse_words(["runs/a", "protocol=knn,linear", "knn.neighbors=200"], Settings)

Options are declared as those of a run are: a dataclass whose fields are `option(...)`, and dataclasses within it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import TrainerError, did_you_mean
from .check import check
from .help import option_lines
from .quoting import as_readable

Settings = TypeVar("Settings")


def parse_words(words: Sequence[str], settings_class: type[Settings]) -> tuple[list[Path], Settings]:
    """The words without `=`, as paths in the order given, and the options that the others set.

    `a,b` is a list where the option is one. Raises TrainerError for the first word that is wrong, and the nearest right one.
    """
    config = OmegaConf.structured(settings_class)
    paths = []
    for word in words:
        if _is_path(word):
            paths.append(Path(word).expanduser())
        else:
            _set(config, word)
    check(config)
    return list(dict.fromkeys(paths)), cast(Settings, OmegaConf.to_object(config))


def runs_and_options(
    words: Sequence[str], usage: str, settings_class: type[Settings]
) -> tuple[list[Path], Settings] | None:
    """As `parse_words`, of a command that needs a run; None where help is asked for, which is printed."""
    if asks_for_help(words):
        print(words_help(usage, settings_class), end="")
        return None
    paths, settings = parse_words(words, settings_class)
    if not paths:
        raise TrainerError("Give the folder of a finished run, or a file that `export` has written. --help says more.")
    return paths, settings


def words_help(usage: str, settings_class: type[Any]) -> str:
    """What `--help` prints: how the command is used, and its options."""
    options = "\n".join(option_lines(OmegaConf.structured(settings_class)))
    return f"{usage.strip()}\n\nOptions:\n{options}\n"


def asks_for_help(words: Sequence[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(words)


def _is_path(word: str) -> bool:
    """Folders may have a `=` in their names, below other folders: `sweeps/seed=1`."""
    key, equals, _ = word.partition("=")
    if word.startswith("-"):
        raise TrainerError(f"There is no option {key}. Options are words of the form KEY=VALUE; --help lists them.")
    return not equals or "/" in key


def _set(config: DictConfig, word: str) -> None:
    key, _, value = word.partition("=")
    known = list(_keys(config))
    if key not in known and key.partition(".")[0] not in _open_dicts(config):
        raise TrainerError(f"There is no option {key}.{did_you_mean(key, known)} --help lists them.")
    if not value:
        raise TrainerError(f"{key}= is empty: give a value, or {key}=null where it may have none.")
    if isinstance(_node(config, key), ListConfig) and value != "null" and not value.startswith("["):
        word = f"{key}=[{value}]"
    try:
        override = OverridesParser.create().parse_override(as_readable(word))
    except HydraException:
        raise TrainerError(f"Cannot read {word}. A value with brackets or quotes needs quotes around it.") from None
    if override.is_sweep_override():
        raise TrainerError(
            f"{key} takes one value; got {value}. A text with a comma needs quotes: '{key}=\"{value}\"'."
        )
    try:
        OmegaConf.update(config, key, override.value(), merge=False)
    except OmegaConfBaseException as error:
        raise TrainerError(f"{key}: {str(error).splitlines()[0]}") from None


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Of all options; dataclasses within are no options themselves."""
    for name in map(str, config):
        node = config._get_node(name)
        if isinstance(node, DictConfig) and OmegaConf.get_type(node) is not dict:
            yield from _keys(node, f"{prefix}{name}.")
        elif name != "name":  # which stands above the options of its branch
            yield prefix + name


def _node(config: DictConfig, key: str) -> Any:
    """Of the option, also where its value is None."""
    branch, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, branch) if branch else config
    return None if parent is None else parent._get_node(name)


def _open_dicts(config: DictConfig) -> list[str]:
    """The options that take any key of their own: `data_options.root=FOLDER`."""
    return [str(name) for name in config if OmegaConf.get_type(config, str(name)) is dict]
