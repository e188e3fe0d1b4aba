"""Test pictures with boxes: those of the annotation, and those that each detector predicts."""

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .panels import Panel, Size, legend_of, side_by_side

if TYPE_CHECKING:
    from torch import Tensor

PICTURES = Size("pictures", 240, 180)  # the width of a panel; a picture keeps its shape
STYLE = """
.panels.pictures { --least: 10rem; gap: .8rem 1rem; margin-bottom: 1.6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)); }
.panels.pictures figure { max-width: 22rem; }
.panels.pictures svg { border: 1px solid var(--line); overflow: hidden; }
"""
MOST_PIXELS = 480  # of the longer side of a picture in the page
LEAST_SCORE = 0.5  # of a prediction that is shown
LEAST_IOU = 0.5  # of one that is right
LETTERS = 0.06  # of the longer side of a picture
LETTER_WIDTH = 0.6  # of their height, about
HALO = "#000000"


class Look(NamedTuple):
    """Of a box. It lies on a photo, so its colors are the same on light pages and on dark ones."""

    color: str
    dashes: str
    meaning: str


TRUE = Look("#ffffff", "", "an object")
DIFFICULT = Look("#ffffff", "2 3", "a difficult one, which does not count")
RIGHT = Look("#8fd18f", "", f"right: its class, and an IoU of {LEAST_IOU} at least")
WRONG = Look("#ee7d54", "6 3", "wrong")
LEFT_OUT = Look("#8cc4ff", "2 3", "on a difficult object: neither")
LOOKS = (TRUE, DIFFICULT, RIGHT, WRONG, LEFT_OUT)


def example_pictures(
    examples: Sequence[Mapping[str, Any]], detectors: Mapping[int, str], classes: Sequence[str]
) -> str:
    """A strip for each picture: its objects, then the predictions of each detector, by its place in the examples."""
    strips = []
    for number, example in enumerate(examples):
        sheet = Sheet.of(example["pixels"], f"picture-{number}")
        panels = [
            Panel(example["name"], sheet.svg(list(_objects(example["truth"], classes)), example["name"], first=True))
        ]
        for place, label in detectors.items():
            boxes = list(_predictions(example["predictions"][place], example["truth"], classes))
            title = label if boxes else f"{label}: none"
            panels.append(Panel(title, sheet.svg(boxes, title)))
        strips.append(side_by_side(panels, PICTURES))
    return legend_of((_swatch(look), look.meaning) for look in LOOKS) + "".join(strips)


def verdicts(predicted: Mapping[str, "Tensor"], truth: Mapping[str, "Tensor"]) -> list[Look]:
    """Whether each prediction is right. From the best score down, each takes the object that it overlaps most of those of
    its class that none has taken; a difficult object can be taken by many."""
    from torchvision.ops import box_iou

    overlaps = box_iou(predicted["boxes"].float(), truth["boxes"].float())
    taken: set[int] = set()
    found = [WRONG] * len(overlaps)
    for i in predicted["scores"].argsort(descending=True, stable=True).tolist():
        fits = ((truth["labels"] == predicted["labels"][i]) & (overlaps[i] >= LEAST_IOU)).nonzero().flatten().tolist()
        counted = [j for j in fits if not truth["difficult"][j] and j not in taken]
        if counted:
            taken.add(max(counted, key=lambda j: overlaps[i][j].item()))
            found[i] = RIGHT
        elif any(truth["difficult"][j] for j in fits):
            found[i] = LEFT_OUT
    return found


class Box(NamedTuple):
    corners: Sequence[float]  # x1, y1, x2, y2 in pixels
    text: str
    look: Look


def _objects(truth: Mapping[str, "Tensor"], classes: Sequence[str]) -> Iterator[Box]:
    for corners, label, hard in zip(*(truth[key].tolist() for key in ("boxes", "labels", "difficult")), strict=True):
        yield Box(corners, classes[label - 1], DIFFICULT if hard else TRUE)


def _predictions(
    predicted: Mapping[str, "Tensor"], truth: Mapping[str, "Tensor"], classes: Sequence[str]
) -> Iterator[Box]:
    """Those with a score that is high enough, the best on top."""
    shown = predicted["scores"] >= LEAST_SCORE
    boxes, labels, scores = (predicted[key][shown].cpu() for key in ("boxes", "labels", "scores"))
    looks = verdicts({"boxes": boxes, "labels": labels, "scores": scores}, truth)
    for i in scores.argsort(stable=True).tolist():
        yield Box(boxes[i].tolist(), f"{classes[int(labels[i]) - 1]} {scores[i]:.2f}", looks[i])


class Sheet(NamedTuple):
    """A picture on which boxes are drawn. The page holds it once."""

    name: str
    data: str  # of an image, as a page loads it
    width: int  # in pixels
    height: int

    @classmethod
    def of(cls, pixels: "Tensor", name: str) -> "Sheet":
        """From uint8 `(3, height, width)`."""
        from PIL import Image

        height, width = pixels.shape[1:]
        picture = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
        picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=85)
        return cls(name, f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}", width, height)

    def svg(self, boxes: Sequence[Box], title: str, first: bool = False) -> str:
        """`first`: it stands before all others of the picture, and holds its pixels."""
        held = f'<image id="{self.name}" href="{self.data}" width="{self.width}" height="{self.height}"/>'
        shown = held if first else f'<use href="#{self.name}"/>'
        drawn = [*(_outlined(_frame(box.corners), box.look) for box in boxes), *map(self._text, boxes)]
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{html.escape(title)}" '
            f'style="font-family: system-ui, sans-serif">{shown}{"".join(drawn)}</svg>'
        )

    def _text(self, box: Box) -> str:
        """Above the box, or in it where the picture has no room, and never outside the picture."""
        left, top, *_ = box.corners
        size = LETTERS * max(self.width, self.height)
        x = max(0.0, min(left, self.width - LETTER_WIDTH * size * len(box.text)))
        y = top - 0.3 * size if top > 1.3 * size else max(top, 0.0) + 1.1 * size
        return (
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}" font-weight="600" fill="{box.look.color}" '
            f'stroke="{HALO}" stroke-width="{size / 5:.1f}" paint-order="stroke">{html.escape(box.text)}</text>'
        )


def _frame(corners: Sequence[float]) -> str:
    x1, y1, x2, y2 = corners
    return f'x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}"'


def _outlined(frame: str, look: Look) -> str:
    """A rectangle that is seen on any photo: its line has a dark one below it."""
    dashes = f' stroke-dasharray="{look.dashes}"' if look.dashes else ""
    return "".join(
        f'<rect {frame} fill="none" stroke="{color}" stroke-width="{width}" vector-effect="non-scaling-stroke"{dash}/>'
        for color, width, dash in ((HALO, 4, ""), (look.color, 2, dashes))
    )


def _swatch(look: Look) -> str:
    frame = 'x="3" y="2" width="22" height="8"'
    return f'<svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{_outlined(frame, look)}</svg>'
