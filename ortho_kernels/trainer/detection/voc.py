"""Pictures with boxes in the layout of PASCAL VOC (Everingham et al. 2010), as torchvision unpacks it.

    VOCdevkit/VOC2007/JPEGImages/000005.jpg         a picture
    VOCdevkit/VOC2007/Annotations/000005.xml        its size, and the class and box of each object
    VOCdevkit/VOC2007/ImageSets/Main/trainval.txt   the names of a set's pictures, one a line

VOC2012 lies beside VOC2007. Data of one's own does in the same layout.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from PIL import Image
from torch import Tensor

from ..data.decoding import PictureError, load_upright, named, to_tensor
from ..errors import TrainerError, did_you_mean, printable

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CORNERS = ("xmin", "ymin", "xmax", "ymax")
LAYOUT = "It has to hold VOCdevkit/VOC2007 and the like, each with JPEGImages, Annotations and ImageSets/Main"
OVERHANG = 1  # pixels that a box may reach beyond its picture: programs that count from 0 write such boxes


@dataclass(frozen=True)
class Boxes:
    """The objects of one picture."""

    boxes: Tensor  # float32 (n, 4): x1, y1, x2, y2 in pixels; the whole picture is 0, 0, width, height
    labels: Tensor  # int64 (n,): 1 is the first class, 0 the background
    difficult: Tensor  # bool (n,): objects that VOC's annotators found hard to recognize
    name: str  # of the picture: VOC2007/000005

    def __len__(self) -> int:
        return len(self.labels)


class VOC:
    """Pictures and their boxes: `voc[i]` is uint8 `(3, height, width)` and the picture's `Boxes`.

    Raises PictureError for a picture that can't be decoded, or is not as large as its annotation says.
    """

    def __init__(
        self, files: Sequence[Path], sizes: Sequence[tuple[int, int]], truths: Sequence[Boxes], classes: Sequence[str]
    ) -> None:
        self.files = files
        self.sizes = sizes  # width and height
        self.truths = truths
        self.classes = classes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Boxes]:
        file = self.files[index]
        with named(printable(str(file))), Image.open(file) as picture:
            upright = load_upright(picture, channels=3)
        if upright.size != self.sizes[index]:
            found, said = (f"{width} x {height}" for width, height in (upright.size, self.sizes[index]))
            raise PictureError(
                f"The picture {printable(str(file))} is {found}, its annotation says {said}: replace one."
            )
        return to_tensor(upright), self.truths[index]


def read_voc(root: Path | str, sets: Sequence[tuple[str, str]], classes: Sequence[str] = VOC_CLASSES) -> VOC:
    """The pictures of these sets, such as `[("2007", "trainval"), ("2012", "trainval")]`, one set after another.

    `root` is the folder that holds VOCdevkit, or VOCdevkit itself. All annotations are read at once. VOC counts pixels from
    1 and includes the last one, so a box `xmin, ymin, xmax, ymax` becomes `xmin - 1, ymin - 1, xmax, ymax`.

    Raises TrainerError, with the file, for a list, annotation or picture that is missing or can't be read, an object
    without a box or of no class in the list, and a box that has no area or leaves its picture; and for a class that is
    listed twice.
    """
    given = Path(root).expanduser()
    folder = given / "VOCdevkit" if (given / "VOCdevkit").is_dir() else given
    if not sets:
        raise TrainerError("Name one set of pictures at least, such as 2007 trainval.")
    if twice := [name for name in classes if list(classes).count(name) > 1]:
        raise TrainerError(f"The list of classes names {twice[0]} twice: {', '.join(classes)}. Name each once.")
    files, sizes, truths = [], [], []
    for year, name in sets:
        part = folder / f"VOC{year}"
        for picture in _listed(part, name, given):
            size, truth = _annotation(part / "Annotations" / f"{picture}.xml", f"{part.name}/{picture}", classes)
            file = part / "JPEGImages" / f"{picture}.jpg"
            if not file.is_file():
                raise TrainerError(f"{file} is missing, and {name}.txt lists it. Unpack the archive again.")
            files.append(file)
            sizes.append(size)
            truths.append(truth)
    return VOC(files, sizes, truths, tuple(classes))


def _listed(part: Path, name: str, given: Path) -> list[str]:
    """The names of a set's pictures. Lists of one class have a second column, which is left aside."""
    file = part / "ImageSets" / "Main" / f"{name}.txt"
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except OSError as error:
        raise TrainerError(f"Cannot read {file}: {error.strerror}. {given} has no such set. {LAYOUT}.") from None
    except UnicodeDecodeError as error:
        raise TrainerError(f"Cannot read {file}: {error}. Save it in UTF-8.") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise TrainerError(f"{file} lists no picture. Unpack the archive again.")
    return names


def _annotation(file: Path, name: str, classes: Sequence[str]) -> tuple[tuple[int, int], Boxes]:
    """The picture's width and height, and its objects."""
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise TrainerError(f"Cannot read the annotation {file}: {error.strerror}. Unpack the archive again.") from None
    except ElementTree.ParseError as error:
        raise TrainerError(f"{file} is no XML ({error}). Unpack the archive again.") from None
    except (LookupError, ValueError) as error:  # of the encoding that its first line names
        raise TrainerError(f"Cannot read the annotation {file}: {error}. Save it in UTF-8.") from None
    width, height = (_number(root.find("size"), key, f"{file}: the picture's size") for key in ("width", "height"))
    objects = root.findall("object")
    if not objects:
        raise TrainerError(
            f"{file} has no object. Add its boxes, or take the picture from the lists in ImageSets/Main."
        )
    boxes, labels, difficult = [], [], []
    for number, found in enumerate(objects, start=1):
        kind = (found.findtext("name") or "").strip()
        if kind not in classes:
            raise TrainerError(
                f"{file}: object {number} is of the class {kind!r}, which is not in the list."
                f"{did_you_mean(kind, classes)} The list: {', '.join(classes)}."
            )
        labels.append(1 + classes.index(kind))
        whose = f"{file}: object {number} ({kind})"
        boxes.append(_box(found, width, height, whose))
        difficult.append(_is_difficult(found, whose))
    return (int(width), int(height)), Boxes(torch.tensor(boxes), torch.tensor(labels), torch.tensor(difficult), name)


def _is_difficult(found: ElementTree.Element, whose: str) -> bool:
    text = (found.findtext("difficult") or "").strip()
    if text not in ("", "0", "1"):
        raise TrainerError(f"{whose}: difficult is 0 or 1, and here {text!r}. Correct it.")
    return text == "1"


def _box(found: ElementTree.Element, width: float, height: float, whose: str) -> list[float]:
    """x1, y1, x2, y2, within the picture. Parts of an object (head, hands) have boxes of their own, which are not read."""
    box = found.find("bndbox")
    if box is None:
        raise TrainerError(f"{whose} has no box. Give it a bndbox of {', '.join(CORNERS)}, or remove the object.")
    x1, y1, x2, y2 = (_number(box, key, f"{whose}: its box") for key in CORNERS)
    x1, y1 = x1 - 1, y1 - 1  # the left edge of a pixel that was counted from 1
    written = f"({', '.join(f'{key}={box.findtext(key)}' for key in CORNERS)})"
    if min(x1, y1) < -OVERHANG or x2 > width + OVERHANG or y2 > height + OVERHANG:
        raise TrainerError(
            f"{whose}: the box {written} leaves its picture of {width:g} x {height:g} pixels. Correct it."
        )
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)
    if not (x1 < x2 and y1 < y2):
        raise TrainerError(f"{whose}: the box {written} has no area. Correct it, or remove the object.")
    return [x1, y1, x2, y2]


def _number(parent: ElementTree.Element | None, key: str, whose: str) -> float:
    text = None if parent is None else parent.findtext(key)
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TrainerError(f"{whose} needs a number for {key}, and has {'none' if text is None else repr(text)}.")
    return value
