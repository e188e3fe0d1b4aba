"""What a trained detector finds on pictures."""

import torch
from torch import Tensor, nn

from ..data.recolored import recolor
from ..probes.progress_lines import with_progress
from .voc import VOC


@torch.no_grad()
def predict(detector: nn.Module, voc: VOC, channels: int) -> list[dict[str, Tensor]]:
    """For each picture, seen with so many channels, `boxes` `(n, 4)` in pixels, `labels` `(n,)` and `scores` `(n,)`, on the
    CPU."""
    device = next(detector.parameters()).device
    detector.eval()
    found = []
    for index in with_progress(range(len(voc)), len(voc), "test pictures"):
        pixels = recolor(voc[index][0][None], channels)[0].to(device)
        found.append({key: value.cpu() for key, value in detector([pixels.float().div(255)])[0].items()})
    return found
