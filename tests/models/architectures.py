"""What an architecture of these tests is: a tiny model with random weights, what it is run on, and what is left out."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# Words of the reasons for which a parameter that enters a product is left out.
EMBEDDING = " table"
TIED = "tied to the embedding"
RECURRENT = " weight; `extra` adds it"
BARE = "no layer known here"
ENTRY = "ParameterDict entry"
VECTOR = "a vector"
BATCH = "a batch of matrices"


@dataclass(frozen=True)
class Architecture:
    """`uncovered` names what enters a product and is left out all the same: pattern of names -> words of the reason."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    uncovered: dict[str, str] = field(default_factory=dict)


def arguments(**shapes: tuple[int, ...]) -> Callable[[], dict[str, Tensor]]:
    """Draws tensors of these shapes: small whole numbers for `*ids`, normal ones for all else."""

    def draw() -> dict[str, Tensor]:
        return {
            name: torch.randint(1, 10, shape) if name.endswith("ids") else torch.randn(shape)
            for name, shape in shapes.items()
        }

    return draw
