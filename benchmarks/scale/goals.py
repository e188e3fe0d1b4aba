"""What the counts are held to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..model_shapes import Shapes, resnet50, vit
from .counted import FSDP2, SHARED, TENSOR_PARALLEL, count

MODELS = {"ResNet-50": resnet50(), "ViT-B/16": vit(768, 12)}
WORK = {"ResNet-50": 1.4, "ViT-B/16": 1.1}  # of a rank, in fair shares
SUMS = {"ResNet-50": 0.02, "ViT-B/16": 0.01}  # of SRIP, relative to gathering
MOVED = {4: 0.7, 8: 0.3}  # of SO, likewise, by ranks
SHARED_WORK = {"ResNet-50": 0.3}  # of one process's, on 4 ranks of DDP


class Goal(NamedTuple):
    """What is to be `most` at most."""

    name: str
    found: float
    most: float

    @property
    def is_met(self) -> bool:
        return self.found <= self.most


def narrow(shapes: Shapes, times: int = 8) -> Shapes:
    """A network of the same structure with fewer channels. Colors stay, and so do kernels."""
    return [tuple(size // times if dim < 2 and size >= times else size for dim, size in enumerate(s)) for s in shapes]


def goals() -> Iterator[Goal]:
    """With the classifier and without it."""
    for model, whole in MODELS.items():
        for suffix, shapes in (("", whole), (" without its head", whole[:-1])):
            yield from _goals(model, model + suffix, shapes)


def _goals(model: str, name: str, shapes: Shapes) -> Iterator[Goal]:
    for layout in (FSDP2, TENSOR_PARALLEL):
        for ranks in (2, 4, 8):
            so, srip = (count(shapes, layout, kind, ranks) for kind in ("so", "srip"))
            where = f"{name}, {layout}, {ranks} ranks"
            yield Goal(f"{where}: SO's work of a rank, in fair shares", ranks * so.share(shapes, "so"), WORK[model])
            if ranks in MOVED:
                yield Goal(f"{where}: SO's bytes, relative to gathering", so.moved(shapes), MOVED[ranks])
            yield Goal(f"{where}: SRIP's bytes, relative to gathering", srip.moved(shapes), SUMS[model])
    if model in SHARED_WORK:
        for kind in ("so", "srip"):
            share = count(shapes, SHARED, kind, 4).share(shapes, kind)
            yield Goal(f"{name}, DDP, 4 ranks: {kind}'s work of a rank, of one process's", share, SHARED_WORK[model])
