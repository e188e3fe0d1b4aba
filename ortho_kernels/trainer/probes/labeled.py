"""A share of labeled pictures in which each class has its part."""

import torch
from torch import Tensor


def draw_share(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Places in `labels` `(images,)` of the share of each class that is nearest, and at least one of each; in order.

    With the same generator's seed a smaller share is a part of a larger one.
    """
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    chosen = []
    for label in shuffled.unique():
        places = order[shuffled == label]
        chosen.append(places[: max(1, round(share * len(places)))])
    return torch.cat(chosen).sort().values
