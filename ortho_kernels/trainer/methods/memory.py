"""What a method remembers of earlier images. It is part of checkpoints, and the same on all processes."""

import torch
import torch.nn.functional as F
from lightly.utils import dist
from torch import Tensor, nn


class Memory(nn.Module):
    """Moves once an optimizer step, however many batches the step accumulates: every batch sees the memory as it was
    when the step began. `collect` sets aside what a batch leaves; `move`, after the step, takes all of it in."""

    def __init__(self) -> None:
        super().__init__()
        self.collected: list[Tensor] = []  # empty between steps, which is when checkpoints are written

    @torch.compiler.disable  # a list that grows would be compiled anew at each length
    def collect(self, values: Tensor) -> None:
        """The same shape for all batches of a step and on all processes."""
        self.collected.append(values.detach())

    @torch.no_grad()
    def move(self) -> None:
        if not self.collected:
            return
        batches = torch.stack(self.collected)
        self.collected.clear()
        processes = dist.gather(batches) if dist.world_size() > 1 else (batches,)
        # Batch by batch, and the processes' parts of each in order: as one process with the joint batches would.
        self.take_in(torch.stack(processes, dim=1).flatten(0, 1))

    def take_in(self, collected: Tensor) -> None:
        """What was collected in the step, oldest first: `(parts, ...)`."""
        raise NotImplementedError


class Queue(Memory):
    """The last `size` of the vectors that came in; at first random directions. The oldest leave first."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.long))  # its place in `vectors`
        self.vectors: Tensor
        self.oldest: Tensor

    @torch.no_grad()
    def nearest(self, queries: Tensor) -> Tensor:
        """To each of `(batch, dim)` queries the held vector of the most similar direction: `(batch, dim)`."""
        return self.vectors[(queries @ self.vectors.T).argmax(1)]

    def take_in(self, collected: Tensor) -> None:
        vectors = collected.flatten(0, 1)
        size, count = len(self.vectors), len(vectors)
        # The place is a tensor that stays on its device: to read it would make the host wait.
        places = (self.oldest + torch.arange(count, device=vectors.device)) % size
        self.vectors.index_copy_(0, places[-size:], vectors[-size:].to(self.vectors.dtype))
        self.oldest.add_(count).remainder_(size)


class Center(Memory):
    """The moving average of means."""

    def __init__(self, dim: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))
        self.mean: Tensor

    def take_in(self, collected: Tensor) -> None:
        self.mean.lerp_(collected.mean(0).to(self.mean.dtype), 1 - self.momentum)
