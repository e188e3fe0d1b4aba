"""What a backbone is to the trainer: options, and the encoder that they describe."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from omegaconf import MISSING
from torch import nn


@dataclass
class Backbone(ABC):
    """The options of a backbone are its fields, with their defaults."""

    name: str = MISSING  # under which it was chosen

    @abstractmethod
    def build(self, channels: int, size: int) -> nn.Module:
        """The encoder: images `(batch, channels, size, size)` to vectors `(batch, encoder.features)`."""

    def library_network(self, channels: int, size: int) -> nn.Module | None:
        """timm's or torchvision's own network with the weights' names and shapes of the encoder, if there is one."""
        return None

    def trained_network(self, channels: int, size: int) -> nn.Module | None:
        """That network with the library's trained weights, for `init=pretrained`; None where it has none.

        Raises Unavailable where they can't be fetched. A classifier is left out by its caller.
        """
        return None
