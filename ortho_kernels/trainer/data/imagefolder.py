"""Any folder of pictures: ROOT/train/CLASS/**/*.jpg and ROOT/test/CLASS/**/*.jpg (or val), ImageNet among them."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..distributed.processes import print_once
from ..errors import TrainerError
from ..options import at_least, one_of, option
from .base import Source
from .broken import BrokenPictures
from .class_folders import LeftOut, list_classes
from .encoded import EncodedImages
from .images import Images, Splits
from .picture_sources import PictureFiles
from .views import LocalSettings, ViewSettings

TEST_NAMES = ("test", "val")
GIB = 1024**3


@dataclass
class ImageFolder(Source):
    name: str = "imagefolder"
    root: str | None = option(None, "folder that holds train/CLASS/ and test/CLASS/ (or val/CLASS/)")
    size: int = 32
    decode_size: int | None = option(
        None, "shorter side of pictures in memory, and in evaluation; by default that of views", at_least(1)
    )
    classes: str | None = option(None, "file that lists the class folders to use, one a line; all by default")
    memory_gib: float = option(4.0, "decode once into memory what takes no more", at_least(0))
    pipeline: str | None = option(
        None, "who cuts crops: the device from pictures in memory, or workers from files", one_of("device", "workers")
    )
    # To skip, the headers of pictures outside memory are read before a run: this takes long for a million files.
    corrupt: str = option("stop", "what to do at a picture that cannot be decoded", one_of("stop", "skip"))

    def load(self) -> Splits:
        if not self.root:
            raise TrainerError(
                f"data={self.name} needs data.root=FOLDER, which holds train/CLASS/*.jpg and test/CLASS/*.jpg (or val)."
            )
        root = Path(self.root).expanduser()
        if root.is_dir() and not (root / "train").is_dir():
            raise TrainerError(
                f"data.root={root} has no folder train: pictures belong in {root}/train/CLASS/ and {root}/test/CLASS/ (or "
                "val/CLASS/), also at any depth below CLASS."
            )
        test_folder = next((root / name for name in TEST_NAMES if (root / name).is_dir()), root / TEST_NAMES[0])
        wanted, left_out = _read_classes(self.classes), LeftOut()
        train, test = list_classes(root / "train", wanted, left_out), list_classes(test_folder, wanted, left_out)
        if unknown := sorted(set(test) - set(train)):
            raise TrainerError(f"{test_folder} has classes that {root / 'train'} lacks: {', '.join(unknown)}.")
        if left_out.counts:
            print_once(f"data.root={root}: {left_out}")
        broken = BrokenPictures()
        classes = sorted(train)
        folders = root / "train", test_folder
        sets = [
            _encode(folder, files, classes, self, broken) for folder, files in zip(folders, (train, test), strict=True)
        ]
        decoded_by_workers = self.pipeline == "workers" or self.views.transform is not None
        in_memory = not decoded_by_workers and sum(each.bytes_in_memory() for each in sets) / GIB <= self.memory_gib
        readable = [_readable(images, in_memory, folder, classes) for images, folder in zip(sets, folders, strict=True)]
        return Splits(readable[0], readable[1], classes, broken=broken)


def imagenet_views() -> ViewSettings:
    """Of the libraries that the paper used, for BYOL on ImageNet; SwAV's and DINO's own crops are their recipes'."""
    return ViewSettings(min_area=0.08, local=LocalSettings(size=96))


@dataclass
class ImageNet(ImageFolder):
    """The folder of ImageNet, train/nXXXXXXXX/*.JPEG and val/nXXXXXXXX/*.JPEG: it is not to be had without an account."""

    name: str = "imagenet1k"
    size: int = 224
    decode_size: int | None = 256
    views: ViewSettings = field(default_factory=imagenet_views)


@dataclass
class ImageNet100(ImageNet):
    """A folder of the hundred classes, or all of ImageNet with data.classes=FILE that lists them."""

    name: str = "imagenet100"


def _read_classes(path: str | None) -> set[str] | None:
    if path is None:
        return None
    try:
        # With the mark that editors of Windows begin with, or not.
        text = Path(path).expanduser().read_text("utf-8-sig")
    except OSError as error:
        raise TrainerError(f"Cannot read data.classes={path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise TrainerError(f"data.classes={path} is no text in UTF-8: save it so, one class folder a line.") from None
    names = {line.strip() for line in text.split("\n") if line.strip()}
    if not names:
        raise TrainerError(f"data.classes={path} lists no class folders.")
    return names


def _encode(
    folder: Path, files: dict[str, list[str]], classes: list[str], settings: ImageFolder, broken: BrokenPictures
) -> EncodedImages:
    paths = [os.fsencode(path) for name in classes for path in files.get(name, [])]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(files.get(name, [])) for name in classes]))
    sources = PictureFiles.of(os.fsencode(os.path.join(folder, "")), paths)
    size = settings.decode_size or settings.size
    return EncodedImages(sources, labels, size, broken if settings.corrupt == "skip" else None)


def _readable(images: EncodedImages, in_memory: bool, folder: Path, classes: list[str]) -> Images:
    """Without the pictures that are known to be broken before the run starts; each class has to keep some."""
    readable: Images = images
    if in_memory:
        readable = images.decode_whole()
    elif images.broken is not None:
        readable = images.with_readable_headers()
    if len(readable) == 0:
        raise TrainerError(f"None of the {len(images)} pictures can be decoded, {images.sources.name(0)} among them.")
    before, after = (labels.bincount(minlength=len(classes)) for labels in (images.labels, readable.labels))
    for name, count in zip(classes, torch.where(after == 0, before, 0).tolist(), strict=True):
        if count:
            raise TrainerError(
                f"None of the {count} pictures in {folder / name} can be decoded. Replace them, or list the other "
                "classes in a file: data.classes=FILE."
            )
    return readable
