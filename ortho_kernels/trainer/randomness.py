"""Every random number of a run is a function of the seed, its purpose and its place in the run.

So an exact resume needs no saved generator state. And two runs that differ in gamma alone see the same initial weights,
the same order of images and the same views, whatever else they draw.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_for(seed: int, purpose: str, place: int = 0) -> int:
    """A seed of 63 bits that is unrelated for every other purpose or place."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{place}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator_for(device: torch.device | str, seed: int, purpose: str, place: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_for(seed, purpose, place))


def host_generator_for(seed: int, purpose: str, place: int = 0) -> np.random.Generator:
    """For what the host has to know of what is drawn."""
    return np.random.default_rng(seed_for(seed, purpose, place))


def seed_globally(seed: int, purpose: str, place: int = 0) -> None:
    """Seeds the generators that layers and libraries draw from (dropout, start vectors, initial weights)."""
    value = seed_for(seed, purpose, place)
    torch.manual_seed(value)
    random.seed(value)
    np.random.seed(value % 2**32)


@contextmanager
def preserve_global_generators(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within it, afterwards the generators that `seed_globally` seeds are as they were: those of the
    host, and that of the device."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
