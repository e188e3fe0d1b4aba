"""Barlow Twins (Zbontar et al., ICML 2021): the cross-correlation of two views' features becomes the identity."""

from dataclasses import dataclass

import torch
from lightly.models.modules import BarlowTwinsProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from ..distributed.collectives import sum_over_processes
from ..options import at_least, more_than, option
from .base import Method, MethodSettings, Output


class BarlowTwins(Method):
    @dataclass
    class Settings(MethodSettings):
        name: str = "barlow_twins"
        views: str = "asymmetric"
        hidden: int = option(2048, "width of the projector's hidden layers", at_least(1))
        projection: int = option(2048, "width of its output", at_least(1))
        off_diagonal: float = option(5e-3, "weight of redundancy against invariance, lambda in the paper", at_least(0))
        scale: float = option(0.1, "factor of the whole loss", more_than(0))

    def __init__(self, encoder: nn.Module, settings: Settings) -> None:
        super().__init__(encoder, settings)
        self.projector = BarlowTwinsProjectionHead(encoder.features, settings.hidden, settings.projection)
        # A module, as in the authors' code: synchronized batch norm makes it see the joint batch of all processes.
        # Lightly's loss normalizes each process's part by itself.
        self.standardize = nn.BatchNorm1d(settings.projection, affine=False)
        self.off_diagonal = settings.off_diagonal
        self.scale = settings.scale

    def forward(self, views: list[Tensor]) -> Output:
        first, second = (self.projector(self.encoder(view)) for view in views)
        correlation = cross_correlation(self.standardize(first), self.standardize(second))
        error = (correlation - torch.eye(len(correlation), device=correlation.device)).square()
        invariance = error.diagonal().sum()
        loss = invariance + self.off_diagonal * (error.sum() - invariance)
        return Output(self.scale * loss, first)


def cross_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Of standardized features `(batch, dim)`, over the joint batch of all processes: `(dim, dim)`."""
    correlation = first.T @ second / len(first)
    ranks = dist.world_size()
    return sum_over_processes(correlation / ranks) if ranks > 1 else correlation
