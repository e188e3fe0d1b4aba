"""One of everything that is not in the package, for the processes that a test starts too."""

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import torch
from lightly.loss import NegativeCosineSimilarity
from torch import nn

from ortho_kernels.trainer.backbones import Backbone, Wrapped
from ortho_kernels.trainer.backbones.resnet import ResNet18
from ortho_kernels.trainer.data import MemoryImages, Source, Splits
from ortho_kernels.trainer.engine.penalties import AutogradPenalty, Penalty
from ortho_kernels.trainer.methods import Method, MethodSettings, Output
from ortho_kernels.trainer.options import at_least, more_than, one_of, option
from ortho_kernels.trainer.probes.protocols import Outcome, Protocol


class Predicting(Method):
    @dataclass
    class Settings(MethodSettings):
        hidden: int = option(8, "width of the predictor", at_least(1))
        temperature: float = option(0.5, "divides the loss", more_than(0))
        target: str = option("stopped", "gradients reach the second view, or not", one_of("stopped", "free"))

    def __init__(self, encoder, settings):
        super().__init__(encoder, settings)
        self.settings = settings
        self.predictor = nn.Sequential(
            nn.Linear(encoder.features, settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, encoder.features)
        )
        self.criterion = NegativeCosineSimilarity()

    def forward(self, views):
        first, second = map(self.encoder, views)
        target = second.detach() if self.settings.target == "stopped" else second
        return Output(self.criterion(self.predictor(first), target) / self.settings.temperature, first)


class Bare(Predicting):
    """Without options of its own."""

    Settings = MethodSettings

    def __init__(self, encoder, settings):
        super().__init__(encoder, Predicting.Settings())


class Collapsing(Method):
    """Its projections are nearly one from the first step on."""

    def forward(self, views):
        first, second = (1 + 1e-3 * self.encoder(view) for view in views)
        return Output((first - second).square().mean(), first)


@dataclass
class Noise(Source):
    size: int = 6
    pictures: int = option(64, "number of pictures", at_least(2))

    def load(self):
        drawn = torch.randint(256, (self.pictures, 1, 6, 6), generator=torch.Generator().manual_seed(0))
        images = MemoryImages(drawn.to(torch.uint8), torch.arange(self.pictures) % 2)
        return Splits(images, images, ["even", "odd"])


class Activation(Enum):
    RELU = "ReLU"
    TANH = "Tanh"


@dataclass
class LayerSettings:
    bias: bool = option(True, "the layer adds one")


@dataclass
class Flat(Backbone):
    """No convolution, no batch norm; options of every kind."""

    width: int = option(5, "length of the feature vectors", at_least(1))
    activation: Activation = option(Activation.RELU, "after the layer")
    layer: LayerSettings = field(default_factory=LayerSettings)
    log: Path = Path("flat.log")

    def build(self, channels, size):
        layer = nn.Linear(channels * size * size, self.width, bias=self.layer.bias)
        return Wrapped(nn.Sequential(nn.Flatten(), layer, getattr(nn, self.activation.value)()), self.width)


@dataclass
class Narrow(ResNet18):
    """One of the trainer's own with another default."""

    width: int = 4


class Squares(AutogradPenalty):
    def penalty(self):
        return self.gamma * torch.stack([weight.square().sum() for _, weight, _ in self.weights()]).sum()


@dataclass
class SumOfSquares(Penalty):
    power: int = option(2, "of the weights", at_least(2))

    def build(self, encoder, seed):
        return Squares(encoder, gamma=1.0)


# What is none of these, each in its own way.


class Unrelated:
    pass


def function():
    pass


class NoForward(Method):
    pass


class LossAlone(Predicting):
    def forward(self, views):
        return super().forward(views).loss


class UndecoratedSettings(Predicting):
    class Settings(MethodSettings):
        rate: float = 0.1


class ForeignSettings(Predicting):
    @dataclass
    class Settings:
        rate: float = 0.1


class TensorSettings(Predicting):
    @dataclass
    class Settings(MethodSettings):
        start: torch.Tensor | None = None


class WrongDefault(Predicting):
    @dataclass
    class Settings(Predicting.Settings):
        temperature: float = 0.0


@dataclass
class NoLoad(Source):
    size: int = 6


@dataclass
class ListOfPictures(Source):
    size: int = 6

    def load(self):
        return []


@dataclass
class NoFeatures(Flat):
    def build(self, channels, size):
        return nn.Flatten()


@dataclass
class NoPenaltyModule(Penalty):
    gamma: float | None = 0.1

    def build(self, encoder, seed):
        return nn.Identity()


@dataclass
class Always(Protocol):
    """One answer for every picture."""

    answer: int = option(0, "class that is answered", at_least(0))

    def score(self, exam):
        labels = exam.test_features.labels
        scores = nn.functional.one_hot(torch.full_like(labels, self.answer), len(exam.classes))
        return Outcome.of(scores, labels, len(exam.train))
