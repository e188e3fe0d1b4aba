"""An encoder as a network of transformers: what its config.json and weights are, or why there is none."""

from collections.abc import Iterable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

CLOSE = 1e-5  # of the largest feature: what sums in another order differ by


@dataclass(frozen=True)
class Conversion:
    kind: str  # of network, for people
    features: int  # length of a feature vector
    config: dict[str, Any]  # of config.json
    weights: dict[str, Tensor]  # by transformers' names
    plain: nn.Module  # the network that such a config describes, with the encoder's weights, in evaluation mode


class NotConvertible(Exception):
    """Why transformers has no such network, as a sentence without its period."""


def fill_plain(plain: nn.Module, weights: dict[str, Tensor], kind: str) -> None:
    """Gives the network of the usual form, which has no weights yet, those of an encoder.

    Raises NotConvertible where they have other names or shapes.
    """
    try:
        plain.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        misfit = str(error).splitlines()[1].strip().rstrip(".")
        raise NotConvertible(f"its weights are not those of transformers' {kind} ({shorten(misfit, 200)})") from None
    plain.eval()


@torch.no_grad()
def require_same_features(network: nn.Module, conversion: Conversion, channels: int, size: int) -> None:
    """Raises NotConvertible where the two compute different features: equal weights do not say all of a network."""
    images = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(0))
    ours, theirs = network(images), conversion.plain(images)
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=0, atol=CLOSE * ours.abs().max().item()):
        raise NotConvertible(f"its weights fit transformers' {conversion.kind}, and its features are others")


def replaced(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The name with every pair's first text replaced by its second."""
    for ours, theirs in pairs:
        name = name.replace(ours, theirs)
    return name
