"""The words of commands that score encoders: the exam, and protocols with their options.

network=teacher labels=0.1 protocol=knn,linear knn.neighbors=200
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import partial
from typing import Any

from ..errors import TrainerError
from ..options import at_least, more_than, one_of, option
from ..probes.protocols import PROTOCOLS, Protocol


@dataclass
class ExamSettings:
    """Of every command that scores encoders."""

    protocol: list[str] = option(["knn", "logistic"], f"how an encoder is scored: {', '.join(PROTOCOLS)}")
    network: str | None = option(
        None,
        "encoder that is scored; by default the one that the run was judged by",
        one_of("student", "teacher", "ema"),
    )
    labels: float = option(1.0, "share of the training pictures that have labels, of each class", more_than(0, 1))
    seed: int | None = option(None, "draws pictures, orders and first weights; by default the run's")
    train_images: int | None = option(None, "training pictures, drawn by the seed; all by default", at_least(2))
    test_images: int | None = option(None, "test pictures, drawn by the seed; all by default", at_least(2))
    batch_size: int = option(500, "pictures of a batch, where features are computed", at_least(1))
    device: str = option("auto", "where the encoder computes", one_of("auto", "cpu", "gpu", "cuda", "mps"))


def with_protocol_options(settings_class: type[Any], words: Sequence[str]) -> type[Any]:
    """The settings, and below each protocol's name its options; MODULE:CLASS has the name CLASS.

    Raises TrainerError for a protocol that there isn't.
    """
    words_of = [word.partition("=")[2].strip("[]") for word in words if word.startswith("protocol=")]
    chosen = [name.strip() for names in words_of for name in names.split(",") if name.strip()]
    groups = [
        (_group(name), PROTOCOLS[name], field(default_factory=partial(PROTOCOLS[name], name=name)))
        for name in dict.fromkeys([*PROTOCOLS, *chosen])
    ]
    return make_dataclass(settings_class.__name__, groups, bases=(settings_class,))


def chosen_protocols(settings: Any) -> list[Protocol]:
    """In the order of the words, with their options. Raises TrainerError where one is chosen twice, or none."""
    if not settings.protocol or len(set(settings.protocol)) < len(settings.protocol):
        raise TrainerError(f"protocol={','.join(settings.protocol)}: give each protocol once, and one at least.")
    return [getattr(settings, _group(name)) for name in settings.protocol]


def _group(name: str) -> str:
    return name.rpartition(":")[2]
