"""Any folder of pictures: ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg, decoded once into memory."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..errors import TrainerError
from ..views import ViewSettings
from .images import Images, Splits

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
GIB = 1024**3


@dataclass
class ImageFolderSettings:
    name: str = "imagefolder"
    root: str | None = None
    size: int = 32  # pictures are scaled and centre-cropped to size x size
    memory_gib: float = 4.0  # the most that the decoded pictures may take
    views: ViewSettings = field(default_factory=ViewSettings)


def load_imagefolder(settings: ImageFolderSettings) -> Splits:
    if not settings.root:
        raise TrainerError(
            "data=imagefolder needs data.root=FOLDER, which holds train/CLASS/*.jpg and test/CLASS/*.jpg."
        )
    root = Path(settings.root).expanduser()
    train, test = _listed(root / "train"), _listed(root / "test")
    if unknown := sorted(set(test) - set(train)):
        raise TrainerError(f"{root / 'test'} has classes that {root / 'train'} lacks: {', '.join(unknown)}.")
    classes = sorted(train)
    needed = 3 * settings.size**2 * sum(map(len, [*train.values(), *test.values()])) / GIB
    if needed > settings.memory_gib:
        raise TrainerError(
            f"The pictures in {root} would take {needed:.1f} GiB at {settings.size} x {settings.size}, and "
            f"data.memory_gib allows {settings.memory_gib:g}: raise it, or lower data.size."
        )
    return Splits(_decoded(train, classes, settings.size), _decoded(test, classes, settings.size), classes)


def _listed(folder: Path) -> dict[str, list[Path]]:
    """The picture files of each class."""
    try:
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        files = {entry.name: sorted(f for f in entry.iterdir() if f.suffix.lower() in SUFFIXES) for entry in classes}
    except OSError as error:
        raise TrainerError(
            f"Cannot read {folder}: {error.strerror}. data.root needs train/CLASS/ and test/CLASS/."
        ) from None
    if not files:
        raise TrainerError(f"{folder} has no class folders: pictures belong in {folder}/CLASS/.")
    if empty := [name for name, found in files.items() if not found]:
        raise TrainerError(f"{folder / empty[0]} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    return files


def _decoded(files: dict[str, list[Path]], classes: list[str], size: int) -> Images:
    paths = [path for name in classes for path in files.get(name, [])]
    labels = [label for label, name in enumerate(classes) for _ in files.get(name, [])]
    with ThreadPoolExecutor() as pool:  # PIL decodes outside Python's lock
        pixels = list(pool.map(lambda path: _picture(path, size), paths))
    return Images(torch.stack(pixels), torch.tensor(labels))


def _picture(path: Path, size: int) -> Tensor:
    try:
        with Image.open(path) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainerError(f"Cannot decode the picture {path}: {error}. Replace it or remove it.") from None
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1)
