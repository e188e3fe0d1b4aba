"""What a data set is to the trainer: options, and pictures that they choose."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from omegaconf import MISSING

from ..options import at_least, option
from .images import Splits
from .view_settings import ViewSettings


@dataclass
class Source(ABC):
    """The options of a data set are its fields, with their defaults."""

    name: str = MISSING  # under which it was chosen
    size: int = option(MISSING, "side of the large views in pixels", at_least(1))
    views: ViewSettings = field(default_factory=ViewSettings)

    @abstractmethod
    def load(self) -> Splits:
        """The pictures, the same on every process. Raises TrainerError where the user has to do something."""
