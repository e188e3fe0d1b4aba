"""Any folder of pictures: ROOT/train/CLASS/*.jpg and ROOT/test/CLASS/*.jpg (or val), ImageNet among them."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..errors import TrainerError
from ..views import LocalSettings, ViewSettings
from .decoding import CORRUPT, EncodedImages
from .images import Splits

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
TEST_NAMES = ("test", "val")
GIB = 1024**3


@dataclass
class ImageFolderSettings:
    name: str = "imagefolder"
    root: str | None = None
    size: int = 32  # side of the large views
    decode_size: int | None = None  # pictures are scaled and centre-cropped to this side; `size` by default
    classes: str | None = None  # a file that lists the class folders to use, one a line; all by default
    memory_gib: float = 4.0  # decoded once into memory if that takes no more than this, else for every batch anew
    corrupt: str = "stop"  # at a picture that can't be decoded: stop, or skip it
    views: ViewSettings = field(default_factory=ViewSettings)


def imagenet_views() -> ViewSettings:
    """Of the libraries that the paper used, for BYOL on ImageNet; SwAV's and DINO's own crops are their recipes'."""
    return ViewSettings(min_area=0.08, local=LocalSettings(size=96))


@dataclass
class ImageNetSettings(ImageFolderSettings):
    """The folder of ImageNet, train/nXXXXXXXX/*.JPEG and val/nXXXXXXXX/*.JPEG: it is not to be had without an account."""

    name: str = "imagenet1k"
    size: int = 224
    decode_size: int | None = 256
    views: ViewSettings = field(default_factory=imagenet_views)


@dataclass
class ImageNet100Settings(ImageNetSettings):
    """A folder of the hundred classes, or all of ImageNet with data.classes=FILE that lists them."""

    name: str = "imagenet100"


def load_imagefolder(settings: ImageFolderSettings) -> Splits:
    if not settings.root:
        raise TrainerError(
            f"data={settings.name} needs data.root=FOLDER, which holds train/CLASS/*.jpg and test/CLASS/*.jpg (or val)."
        )
    if settings.corrupt not in CORRUPT:
        raise TrainerError(f"data.corrupt must be one of {', '.join(CORRUPT)}; got {settings.corrupt}.")
    root = Path(settings.root).expanduser()
    test_folder = next((root / name for name in TEST_NAMES if (root / name).is_dir()), root / TEST_NAMES[0])
    wanted = _wanted(settings.classes)
    train, test = _listed(root / "train", wanted), _listed(test_folder, wanted)
    if unknown := sorted(set(test) - set(train)):
        raise TrainerError(f"{test_folder} has classes that {root / 'train'} lacks: {', '.join(unknown)}.")
    classes = sorted(train)
    size = settings.decode_size or settings.size
    encoded = _encoded(train, classes, size, settings.corrupt), _encoded(test, classes, size, settings.corrupt)
    needed = 3 * size**2 * sum(map(len, encoded)) / GIB
    if needed > settings.memory_gib:
        return Splits(encoded[0], encoded[1], classes)
    return Splits(encoded[0].decode(), encoded[1].decode(), classes)


def _wanted(path: str | None) -> set[str] | None:
    if path is None:
        return None
    try:
        names = {line.strip() for line in Path(path).expanduser().read_text().splitlines() if line.strip()}
    except OSError as error:
        raise TrainerError(f"Cannot read data.classes={path}: {error.strerror}.") from None
    if not names:
        raise TrainerError(f"data.classes={path} lists no class folders.")
    return names


def _listed(folder: Path, wanted: set[str] | None) -> dict[str, list[Path]]:
    """The picture files of each class."""
    try:
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        if wanted is not None:
            if missing := sorted(wanted - {entry.name for entry in classes}):
                raise TrainerError(f"{folder} lacks classes that data.classes lists: {', '.join(missing[:5])}.")
            classes = [entry for entry in classes if entry.name in wanted]
        files = {entry.name: sorted(f for f in entry.iterdir() if f.suffix.lower() in SUFFIXES) for entry in classes}
    except OSError as error:
        raise TrainerError(
            f"Cannot read {folder}: {error.strerror}. data.root needs train/CLASS/ and test/CLASS/ (or val/CLASS/)."
        ) from None
    if not files:
        raise TrainerError(f"{folder} has no class folders: pictures belong in {folder}/CLASS/.")
    if empty := [name for name, found in files.items() if not found]:
        raise TrainerError(f"{folder / empty[0]} holds no pictures ({', '.join(sorted(SUFFIXES))}).")
    return files


def _encoded(files: dict[str, list[Path]], classes: list[str], size: int, corrupt: str) -> EncodedImages:
    paths = [path for name in classes for path in files.get(name, [])]
    labels = [label for label, name in enumerate(classes) for _ in files.get(name, [])]
    return EncodedImages(paths, torch.tensor(labels), size, corrupt)
