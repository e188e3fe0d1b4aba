"""DCL (Yeh et al., ECCV 2022): SimCLR whose positive pair is taken out of the denominator."""

from dataclasses import dataclass
from typing import Any

from lightly.loss import DCLLoss
from torch import nn

from .simclr import SimCLR


class DCL(SimCLR):
    @dataclass
    class Settings(SimCLR.Settings):
        name: str = "dcl"
        temperature: float = 0.1

    @staticmethod
    def criterion_of(settings: Any) -> nn.Module:
        return DCLLoss(settings.temperature, gather_distributed=True)
