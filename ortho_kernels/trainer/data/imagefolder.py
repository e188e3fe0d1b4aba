"""Pictures in files: class folders with a test set (ImageNet among them), any folder, a list, or tar shards."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..distributed.processes import print_once
from ..errors import TrainerError
from ..options import option
from .broken import BrokenPictures
from .class_folders import has_class_folders, list_classes, list_pictures, suffixes
from .encoded import EncodedImages
from .encoded_source import EncodedSource
from .images import Images, Splits
from .left_out import LeftOut
from .picture_lists import read_list
from .picture_sources import PictureFiles, Sources
from .shard_names import find_shards, names_shards
from .shards import index_shards
from .view_settings import LocalSettings, ViewSettings

TEST_NAMES = ("test", "val")


@dataclass
class ImageFolder(EncodedSource):
    """With ROOT/train/CLASS/ and ROOT/test/CLASS/ (or val/CLASS/) there are labels and scores, else none of both."""

    name: str = "imagefolder"
    root: str | None = option(None, "folder of pictures, FILE.txt that lists them, or tar shards x-{000..031}.tar")
    classes: str | None = option(None, "file that lists the class folders to use, one a line; all by default")

    def load(self) -> Splits:
        if not self.root:
            raise TrainerError(
                f"data={self.name} needs data.root=FOLDER: any folder of pictures, or one that holds train/CLASS/ and "
                "test/CLASS/ (or val/CLASS/). data.root=FILE.txt is a list of pictures, data.root='x-{000..031}.tar' are "
                "tar shards."
            )
        root = Path(self.root).expanduser()
        test = next((root / name for name in TEST_NAMES if os.path.isdir(root / name)), None)
        if has_class_folders(root / "train") and test is not None:
            return self._labeled(root, root / "train", test)
        return self._without_labels(root)

    def _labeled(self, root: Path, train_folder: Path, test_folder: Path) -> Splits:
        wanted, left_out = _read_classes(self.classes), LeftOut()
        train, test = (list_classes(folder, wanted, left_out) for folder in (train_folder, test_folder))
        if unknown := sorted(set(test) - set(train)):
            raise TrainerError(f"{test_folder} has classes that {train_folder} lacks: {', '.join(unknown)}.")
        if left_out.counts:
            print_once(f"data.root={root}: {left_out}")
        broken, classes = BrokenPictures(), sorted(train)
        folders = train_folder, test_folder
        sets = [
            self._encode(folder, files, classes, broken if self.corrupt == "skip" else None)
            for folder, files in zip(folders, (train, test), strict=True)
        ]
        ready = self.ready(sets, read_headers=True)
        for folder, before, after in zip(folders, sets, ready, strict=True):
            _require_classes(folder, before, after, classes)
        return Splits(ready[0], ready[1], classes, broken=broken, left_out=left_out)

    def _encode(
        self, folder: Path, files: dict[str, list[str]], classes: list[str], broken: BrokenPictures | None
    ) -> EncodedImages:
        counts = [len(files.get(name, [])) for name in classes]
        labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
        return self.encoded(_files(folder, [path for name in classes for path in files.get(name, [])]), labels, broken)

    def _without_labels(self, root: Path) -> Splits:
        if self.classes is not None:
            raise TrainerError(
                f"data.classes chooses class folders, and data.root={self.root} does not hold both train/CLASS/ and "
                "test/CLASS/ (or val/CLASS/)."
            )
        left_out = LeftOut()
        sources, why = self._find(root, left_out)
        said = [
            f"data.root={self.root}: {len(sources):,} picture{'s' * (len(sources) != 1)} without labels ({why}).",
            str(left_out),
        ]
        print_once(" ".join(filter(None, said)))
        return self.without_labels(sources, left_out)

    def _find(self, root: Path, left_out: LeftOut) -> tuple[Sources, str]:
        """All pictures, and why they are used without labels."""
        assert self.root is not None
        if os.path.isdir(root):  # of a name that is too long, too, Path.is_dir raises an error
            return _find_in_folder(root, left_out)
        # Files and parts of shards that are missing are no broken pictures: they are left out where that is asked for.
        leave_out = self.corrupt == "skip"
        if names_shards(self.root):
            shards = index_shards(find_shards(self.root), leave_out, left_out)
            if not len(shards):
                raise TrainerError(f"data.root={self.root}: there are no pictures in these shards. {left_out}".rstrip())
            return shards, "tar shards"
        if not os.path.exists(root):
            raise TrainerError(f"data.root={self.root}: there is no such folder or file.")
        return read_list(root, leave_out, left_out), "a list"


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

    def _without_labels(self, root: Path) -> Splits:
        raise TrainerError(
            f"data={self.name} needs data.root=FOLDER that holds train/CLASS/ and val/CLASS/ (or test/CLASS/); "
            f"{self.root} does not. For pictures without labels give data=imagefolder."
        )


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


def _find_in_folder(root: Path, left_out: LeftOut) -> tuple[Sources, str]:
    train = root / "train"
    if not os.path.isdir(train):
        folder, why = root, "there is no folder train"
    elif has_class_folders(train):
        folder, why = train, f"of train/: without {' or '.join(f'{name}/' for name in TEST_NAMES)} there are no scores"
    else:
        folder, why = train, "of train/, which has no class folders"
    paths = list_pictures(folder, left_out)
    if not paths:
        tars = sum(count for (_, suffix), count in left_out.counts.items() if suffix == ".tar")
        cure = f" For tar shards give data.root='{folder}/*.tar'." if tars else ""
        raise TrainerError(
            f"{folder} holds no pictures at any depth ({', '.join(sorted(suffixes()))}). {left_out}{cure}"
        )
    return _files(folder, paths), why


def _files(folder: Path, paths: list[str]) -> PictureFiles:
    return PictureFiles.of(os.fsencode(os.path.join(folder, "")), list(map(os.fsencode, paths)))


def _require_classes(folder: Path, images: EncodedImages, readable: Images, classes: list[str]) -> None:
    """Each class has to keep some pictures."""
    before, after = (labels.bincount(minlength=len(classes)) for labels in (images.labels, readable.labels))
    for name, count in zip(classes, torch.where(after == 0, before, 0).tolist(), strict=True):
        if count:
            raise TrainerError(
                f"None of the {count} pictures in {folder / name} can be decoded. Replace them, or list the other "
                "classes in a file: data.classes=FILE."
            )
