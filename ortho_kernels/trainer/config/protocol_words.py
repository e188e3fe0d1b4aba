"""The words that choose protocols and set their options: `protocol=knn,linear knn.neighbors=200`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from typing import Any, cast

from ..errors import TrainerError
from ..options import option
from ..probes.protocols import PROTOCOLS, Protocol


@dataclass
class ProtocolSettings:
    """Of a command that scores encoders."""

    protocol: list[str] = option(["knn", "logistic"], f"how an encoder is scored: {', '.join(PROTOCOLS)}")


def with_protocol_options(settings_class: type[Any], words: Sequence[str]) -> type[Any]:
    """The settings, and below each protocol's name its options; MODULE:CLASS has the name CLASS.

    Raises TrainerError for a protocol that there isn't.
    """
    chosen = [name for word in words if word.startswith("protocol=") for name in word[9:].strip("[]").split(",")]
    classes = {name: PROTOCOLS[name.strip()] for name in [*PROTOCOLS, *filter(None, chosen)]}
    groups = [(_group(name), kind, field(default_factory=kind)) for name, kind in classes.items()]
    return make_dataclass(settings_class.__name__, groups, bases=(settings_class,))


def chosen_protocols(settings: Any) -> list[Protocol]:
    """In the order of the words, with their options. Raises TrainerError where one is chosen twice, or none."""
    if not settings.protocol or len(set(settings.protocol)) < len(settings.protocol):
        raise TrainerError(f"protocol={','.join(settings.protocol)}: give each protocol once, and one at least.")
    protocols = []
    for name in settings.protocol:
        protocol = cast(Protocol, getattr(settings, _group(name)))
        protocol.name = name
        protocols.append(protocol)
    return protocols


def _group(name: str) -> str:
    return name.strip().rpartition(":")[2]
