"""Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 gray pictures of clothes, 28 x 28, MIT license.

From the first of these that works: what lies in the data root already; torchvision's download, with its checksums; the
Debian package `dataset-fashion-mnist`, fetched and unpacked into the data root without root rights.
"""

import gzip
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from torchvision import datasets

from ..errors import TrainerError
from ..options import option
from .base import Source
from .debian_packages import FAILURES, unpacked
from .fetching import data_root, last_line, quiet_download
from .images import Images, MemoryImages, Splits

PACKAGE = "dataset-fashion-mnist"
FILES = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@dataclass
class FashionMNIST(Source):
    name: str = "fashion_mnist"
    root: str | None = option(None, "folder of the files; by default the user's cache")
    size: int = 28

    def load(self) -> Splits:
        root = data_root(self.root)
        raw = root / "FashionMNIST" / "raw"
        if not _complete(raw):
            _obtain(root, raw)
        return Splits(_read(root, raw, train=True), _read(root, raw, train=False), list(datasets.FashionMNIST.classes))


def _complete(raw: Path) -> bool:
    return all((raw / name).is_file() for name in FILES)


def _read(root: Path, raw: Path, train: bool) -> Images:
    try:
        dataset = datasets.FashionMNIST(str(root), train=train, download=False)
    except (RuntimeError, ValueError, AssertionError, EOFError, OSError) as error:
        raise TrainerError(
            f"A Fashion-MNIST file in {raw} is corrupt ({error}). Remove that folder and run again."
        ) from None
    if len(dataset.data) != len(dataset.targets):
        raise TrainerError(
            f"Fashion-MNIST in {raw} has {len(dataset.data)} pictures but {len(dataset.targets)} labels "
            f"({'train' if train else 't10k'}). Remove that folder and run again."
        )
    return MemoryImages(dataset.data.unsqueeze(1).contiguous(), dataset.targets.to(torch.int64))


def _obtain(root: Path, raw: Path) -> None:
    print(f"Fashion-MNIST is not in {root}: fetching 30 MB ...", flush=True)
    try:
        raw.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainerError(
            f"Cannot create {raw}: {error.strerror}. Give a writable folder: data.root=FOLDER."
        ) from None
    reasons = []
    for name, attempt in (("download", _download), (f"Debian package {PACKAGE}", _unpack_debian_package)):
        try:
            attempt(root, raw)
        except (*FAILURES, RuntimeError) as error:
            reasons.append(f"  {name}: {last_line(error)}")
        if _complete(raw):
            return
    raise TrainerError(
        "Fashion-MNIST could not be fetched:\n"
        + "\n".join(reasons)
        + f"\nPut the four files {', '.join(FILES)} (unpacked) into {raw},\nor try without a download: data=digits."
    )


def _download(root: Path, raw: Path) -> None:
    with quiet_download():
        datasets.FashionMNIST(str(root), download=True)


def _unpack_debian_package(root: Path, raw: Path) -> None:
    with unpacked(PACKAGE, beside=root) as folder:
        for name in FILES:
            [packed] = folder.rglob(f"{name}.gz")
            with gzip.open(packed) as source, open(folder / name, "wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(folder / name, raw / name)
