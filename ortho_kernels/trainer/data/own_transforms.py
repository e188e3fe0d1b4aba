"""Transforms by import path, data.views.transform=MODULE:NAME, in the place of crops and colors.

    def transform(picture: PIL.Image.Image) -> torch.Tensor   # gray or color, to float (channels, size, size)

NAME may also be a class or a function without arguments that makes one, or a list with one for each view.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import TrainerError
from ..randomness import seed_globally
from ..registry import Unusable, import_class, raised_at

ENDING = "torchvision's v2.ToImage() and v2.ToDtype(torch.float32, scale=True) make one."
Transform = Callable[[Image.Image], Tensor]


class OwnTransforms:
    """The transforms that a path names, one for each view; each process imports them by itself."""

    def __init__(self, path: str, sizes: Sequence[int], channels: int, seed: int) -> None:
        self.path = path
        self.shapes = [(channels, size, size) for size in sizes]
        self.seed = seed
        self._transforms = self._load()

    def __reduce__(self) -> tuple[Any, ...]:
        channels, sizes = self.shapes[0][0], [shape[1] for shape in self.shapes]
        return OwnTransforms, (self.path, sizes, channels, self.seed)

    def __call__(self, picture: Image.Image, place: int) -> list[Tensor]:
        """The views of a picture. What they draw from torch, random and numpy depends on the seed and `place` alone."""
        return [self._view(number, picture, place) for number in range(len(self.shapes))]

    def _view(self, number: int, picture: Image.Image, place: int) -> Tensor:
        seed_globally(self.seed, f"own transform of view {number}", place)
        try:
            view = self._transforms[number](picture.copy())
        except Exception as error:
            said = str(error).partition("\n")[0]
            raise self._error(f"it raises {type(error).__name__}: {said} ({raised_at(error)}). Fix it there.") from None
        if not isinstance(view, Tensor):
            raise self._error(f"it returns a {type(view).__name__} and no tensor. {ENDING}")
        if not view.is_floating_point():
            raise self._error(f"it returns {view.dtype}, and views are floats. {ENDING}")
        if tuple(view.shape) != self.shapes[number]:
            cure = "give data.size=PIXELS" if len({*self.shapes}) == 1 else "name a list with a transform for each view"
            raise self._error(
                f"it returns {tuple(view.shape)} for view {number + 1}, which is {self.shapes[number]}: channels, height, "
                f"width. Crop to that size, or {cure}."
            )
        return view.detach().as_subclass(Tensor).to("cpu", torch.float32)

    def _load(self) -> list[Transform]:
        try:
            found = import_class(self.path)
        except Unusable as reason:
            raise self._error(str(reason)) from None
        found = self._made(found)
        transforms = list(found) if isinstance(found, (list, tuple)) else [found] * len(self.shapes)
        if len(transforms) != len(self.shapes):
            raise self._error(f"it lists {len(transforms)} transforms for {len(self.shapes)} views. List one for each.")
        transforms = [self._made(each) for each in transforms]
        for each in transforms:
            if not callable(each):
                raise self._error(f"it holds a {type(each).__name__}. Give a function of a PIL picture.")
        return transforms

    def _made(self, found: Any) -> Any:
        """A class, or a function that needs no argument, makes the transform."""
        if not isinstance(found, type) and not (inspect.isfunction(found) and _needs_nothing(found)):
            return found
        try:
            return found()
        except Exception as error:
            said = str(error).partition("\n")[0]
            raise self._error(f"{found.__name__}() raises {type(error).__name__}: {said}.") from None

    def _error(self, text: str) -> TrainerError:
        return TrainerError(f"data.views.transform={self.path}: {text}")


def _needs_nothing(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return all(
        each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters
    )


@contextmanager
def keep_generators() -> Iterator[None]:
    """What is drawn inside changes nothing outside."""
    state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numpy_state)
