"""Labeled pictures in files that torchvision downloads: its layout, its checksums, its splits; decoded as all others."""

import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..errors import TrainerError
from ..options import option
from .broken import BrokenPictures
from .encoded import EncodedImages
from .encoded_source import EncodedSource
from .fetching import data_root, fetch
from .images import Splits
from .picture_sources import PictureFiles

Sample = tuple[str, int]  # a picture's path, and its class


@dataclass
class TorchvisionPictures(EncodedSource):
    """A subclass says which splits are trained on, which are tested on, and how torchvision opens one."""

    root: str | None = option(None, "folder of the files, as torchvision downloads them; by default the user's cache")

    title: ClassVar[str]
    train_splits: ClassVar[Sequence[str]] = ("train",)
    test_splits: ClassVar[Sequence[str]] = ("test",)

    @abstractmethod
    def dataset(self, root: str, split: str, download: bool) -> Any:
        """torchvision's data set of a split. Raises its RuntimeError where the files are not there."""

    def samples(self, dataset: Any) -> list[Sample]:
        """The pictures of torchvision's data set, whose loader is `str`: none is opened."""
        return [dataset[index] for index in range(len(dataset))]

    def classes(self, dataset: Any) -> list[str]:
        return list(dataset.classes)

    def load(self) -> Splits:
        root = data_root(self.root)
        opened = {split: self._open(root, split) for split in (*self.train_splits, *self.test_splits)}
        classes = self._agreed_classes(root, opened)
        broken = BrokenPictures()
        skipped = broken if self.corrupt == "skip" else None
        sets = [
            self._encode([sample for split in splits for sample in self.samples(opened[split])], skipped)
            for splits in (self.train_splits, self.test_splits)
        ]
        train, test = self.ready(sets, read_headers=True)
        return Splits(train, test, classes, broken=broken)

    def _open(self, root: Path, split: str) -> Any:
        open_dataset: Callable[..., Any] = partial(self.dataset, str(root), split)
        try:
            return fetch(self.title, root, open_dataset)
        except (ValueError, KeyError, IndexError, TypeError) as error:  # of the lists of pictures
            raise TrainerError(
                f"The files of {self.title} in {root} are damaged: {type(error).__name__}: {error} (split {split}). "
                "Remove its folder there and run again."
            ) from None

    def _agreed_classes(self, root: Path, opened: dict[str, Any]) -> list[str]:
        """torchvision numbers the classes of each split by itself, so all splits need the same ones."""
        classes = {split: self.classes(dataset) for split, dataset in opened.items()}
        first, *others = classes
        if differing := [split for split in others if classes[split] != classes[first]]:
            raise TrainerError(
                f"The splits {first} and {differing[0]} of {self.title} in {root} have different classes. Remove its "
                "folder there and run again."
            )
        return classes[first]

    def _encode(self, samples: list[Sample], broken: BrokenPictures | None) -> EncodedImages:
        files = PictureFiles.of(b"", [os.fsencode(path) for path, _ in samples])
        return self.encoded(files, torch.tensor([label for _, label in samples]), broken)
