"""Errors for people from those that Hydra and OmegaConf raise."""

import re
from collections.abc import Sequence

from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ..errors import TrainerError, did_you_mean, no_choice
from .groups import GROUPS, Settings, option_groups
from .identity import flattened, plain
from .quoting import is_readable

RENAMED = {"penalty.kind": "penalty=so"}  # whose nearest word is another option


def check_form(word: str) -> None:
    """Refuses words that Hydra reads in ways of its own: without a key, with a new key, or for Hydra itself."""
    key = word.partition("=")[0]
    if not key:
        raise TrainerError(f"Cannot read {word!r}. Options are words of the form KEY=VALUE; --help lists them.")
    if key.startswith(("+", "~", "hydra.", "hydra/")):
        raise TrainerError(f"There is no option {key}. Options are set as they are listed by --help: KEY=VALUE.")


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One line for people: the word that is wrong, what is accepted, and the nearest valid one."""
    causes = [str(e) for e in (error, error.__cause__) if e is not None]
    text = "\n".join(causes)
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1]
        near = f" Did you mean {RENAMED[key]}?" if key in RENAMED else did_you_mean(key, _known_keys(overrides))
        return f"There is no option {key}.{near}"
    if match := re.search(r"In '[^']*': Could not find '([^']+)'", text):
        group, _, option = match[1].partition("/")
        valid = [*GROUPS.get(group, []), *option_groups().get(group, [])]
        return no_choice(group, option, list(dict.fromkeys(valid)))
    if match := re.search(r"No match in the defaults list", text):
        return text.splitlines()[0]
    if "full_key" in text:
        key = re.search(r"full_key: (\S+)", text)
        if key and re.search(r"Key '[^']+' not in '", text):
            group = key[1].partition(".")[0]
            chosen = next((word for word in reversed(overrides) if word.startswith(f"{group}=")), f"{group}=")
            said = f"The recipe sets {key[1]}, and {chosen} has no such option."
            return f"{said} Leave out {chosen}, or give another experiment."
        said = next(line for line in causes[-1].splitlines() if not line.endswith("while composing config:"))
        return f"{key[1] if key else 'An option'}: {said}"
    if "Ambiguous value" in text:
        word = text.splitlines()[0].rpartition(" ")[2].strip("'")
        return (
            f"'{word}' names several values: give -m to run each of them. "
            f"One value with a comma needs quotes: {_with_quotes(word)}."
        )
    unreadable = next((word for word in overrides if not is_readable(word)), None)
    if unreadable is not None:
        hint = (
            " Brackets, equals signs and quotes in a value need quotes around it that reach the program: "
            f"{_with_quotes(unreadable)}."
        )
        return (
            f"Cannot read {unreadable}. Options are words of the form KEY=VALUE; --help lists them."
            f"{hint if unreadable.partition('=')[2] else ''}"
        )
    return f"Cannot read the options ({text.splitlines()[0]}). They are words of the form KEY=VALUE; --help lists them."


def _with_quotes(word: str) -> str:
    """As a shell takes it."""
    key, _, value = word.partition("=")
    return f"'{key}=\"{value}\"'"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """All option names of the configuration that the readable overrides describe."""
    groups = [word for word in overrides if re.fullmatch(r"\w+=[\w/.:]+", word)]
    for words in (groups, []):
        try:
            return [*flattened(plain(compose("config", overrides=words))), *Settings.__dataclass_fields__]
        except (HydraException, OmegaConfBaseException):
            continue
    return list(Settings.__dataclass_fields__)
