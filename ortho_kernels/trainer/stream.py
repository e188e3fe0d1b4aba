"""The batches of a whole run as one numbered stream, which can be entered anywhere."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .errors import TrainerError
from .randomness import generator_for


class BatchStream:
    """Yields `(pixels, number)`; batch `number` lies in epoch `number // per_epoch`.

    The order of an epoch is a function of (seed, epoch) alone, so the position is all that a checkpoint has to keep.
    Lightning saves and restores it through `state_dict`. A rest too small for a batch is left out of its epoch.
    """

    def __init__(self, pixels: Tensor, batch_size: int, batches: int, seed: int) -> None:
        if batch_size > len(pixels):
            raise TrainerError(
                f"trainer.batch_size={batch_size} is larger than the data, which has {len(pixels)} training "
                f"image{'s' * (len(pixels) != 1)}: lower it, or add images."
            )
        self.pixels = pixels
        self.batch_size = batch_size
        self.batches = batches
        self.seed = seed
        self.position = 0

    @property
    def per_epoch(self) -> int:
        return len(self.pixels) // self.batch_size

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        order: Tensor | None = None
        for number in range(self.position, self.batches):
            epoch, place = divmod(number, self.per_epoch)
            if place == 0 or order is None:
                order = torch.randperm(len(self.pixels), generator=generator_for("cpu", self.seed, "order", epoch))
            self.position = number + 1
            yield self.pixels[order[place * self.batch_size : (place + 1) * self.batch_size]], number

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]
