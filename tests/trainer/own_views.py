"""Transforms of a user's own, good and bad, for tests and the processes that they start."""

import random

import numpy as np
import torch
from torchvision.transforms import v2


def noisy(picture):
    """The first pixel, and what three generators draw."""
    value = float(np.asarray(picture).reshape(-1)[0])
    channels = 1 if picture.mode == "L" else 3
    drawn = [value, torch.rand(()).item(), random.random(), np.random.random()]
    return torch.tensor(drawn).repeat(16)[: 8 * 8].view(1, 8, 8).expand(channels, 8, 8)


class Resize:
    def __call__(self, picture):
        return v2.Compose([v2.Resize((8, 8)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])(picture)


def factory(size=8):
    return v2.Compose([v2.RandomResizedCrop(size), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def black(picture):
    return torch.zeros(3, 8, 8)


PAIR = [noisy, Resize]
THREE = [noisy, noisy, noisy]
NUMBER = 3
WITH_NUMBER = [noisy, 3]


def no_tensor(picture):
    return picture


def in_bytes(picture):
    return torch.zeros(3, 8, 8, dtype=torch.uint8)


def too_large(picture):
    return torch.zeros(3, 9, 8)


def fails(picture):
    raise ValueError("no such corner")


class NeedsSize:
    def __init__(self, size):
        self.size = size
