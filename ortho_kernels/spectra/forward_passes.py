"""Pictures through a network that is only looked at."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 256  # pictures of a tensor that are passed on at a time

Batches = Tensor | Iterable[Any]


def forward_passes(network: nn.Module, batches: Batches, receive: Callable[[Any], None] = lambda output: None) -> int:
    """Hands what the network returns for each batch to `receive`, in evaluation mode and without a graph; returns how
    many pictures there were.

    Batches are one tensor `(pictures, ...)`, which is cut, or an iterable of tensors or of tuples that begin with one, as
    a DataLoader of pictures and labels gives. They are moved to the network's device and, if they are floats, to its dtype.

    Raises:
        ValueError: where there is no picture.
    """
    sample = next((parameter for parameter in network.parameters() if parameter.is_floating_point()), None)
    pictures = 0
    with torch.no_grad(), evaluation_mode(network):
        for batch in batches.split(BATCH) if isinstance(batches, Tensor) else batches:
            batch = pictures_of(batch)
            pictures += len(batch)
            if not len(batch):
                continue
            if sample is not None:
                batch = batch.to(sample.device, sample.dtype if batch.is_floating_point() else None)
            receive(network(batch))
    if not pictures:
        raise ValueError("there is no picture in the batches; an iterator that was read before is empty")
    return pictures


def pictures_of(batch: Any) -> Tensor:
    """The pictures of a batch, which may come with labels."""
    pictures = batch if isinstance(batch, Tensor) else batch[0]
    if not isinstance(pictures, Tensor):
        raise TypeError(f"a batch must be a tensor or begin with one, got {type(pictures).__name__}")
    return pictures


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Within it, all modules are in evaluation mode; then each is as it was."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
