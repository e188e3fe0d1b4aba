"""A small set of pictures in PASCAL VOC's layout: colored shapes on noise, with exact boxes.

    python -m tests.trainer.voc_pictures FOLDER

writes FOLDER/VOCdevkit/VOC2007 (trainval, test) and VOC2012 (trainval). A picture is a function of the seed and its number.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("disk", "square", "triangle")
COLORS = ((214, 69, 65), (46, 134, 193), (241, 196, 15), (39, 174, 96), (142, 68, 173))
SETS = {("2007", "trainval"): 60, ("2007", "test"): 30, ("2012", "trainval"): 60}  # pictures of each
MOST_OBJECTS = 3


def write_voc(root, sets=SETS, size=(120, 90), seed=0, difficult=0.1):
    """Writes the sets; `size` is the width and height of all pictures, `difficult` the share of objects so marked.

    Shapes of all colors occur in every class, so that color says nothing. Returns `root`.
    """
    number = 0
    for (year, name), count in sets.items():
        folder = Path(root) / "VOCdevkit" / f"VOC{year}"
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        names = []
        for _ in range(count):
            number += 1
            names.append(f"{number:06}")
            picture, objects = draw(np.random.default_rng([seed, number]), *size, difficult)
            picture.save(folder / "JPEGImages" / f"{names[-1]}.jpg", quality=95, subsampling=0)
            (folder / "Annotations" / f"{names[-1]}.xml").write_text(annotation(names[-1], size, objects))
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def draw(random, width, height, difficult):
    """A picture, and its objects: class, box of pixels counted from 1 with the last one included, difficult."""
    noise = random.normal(random.uniform(60, 190), 25, (height, width, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(noise)
    pen, objects = ImageDraw.Draw(picture), []
    for _ in range(20):  # tries to place another shape beside those that are there
        side = int(random.uniform(0.25, 0.5) * min(width, height))
        left, top = int(random.integers(0, width - side)), int(random.integers(0, height - side))
        box = (left, top, left + side - 1, top + side - 1)  # pixels from 0
        if len(objects) < MOST_OBJECTS and all(apart(box, other) for _, other, _ in objects):
            shape = SHAPES[random.integers(len(SHAPES))]
            fill(pen, shape, box, COLORS[random.integers(len(COLORS))])
            objects.append((shape, box, bool(random.random() < difficult)))
    return picture, [(shape, tuple(edge + 1 for edge in box), hard) for shape, box, hard in objects]


def apart(first, second):
    return first[2] < second[0] or second[2] < first[0] or first[3] < second[1] or second[3] < first[1]


def fill(pen, shape, box, color):
    left, top, right, bottom = box
    if shape == "disk":
        pen.ellipse(box, color)
    elif shape == "square":
        pen.rectangle(box, color)
    else:
        pen.polygon([((left + right) // 2, top), (right, bottom), (left, bottom)], color)


def annotation(name, size, objects):
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    dimensions = ElementTree.SubElement(root, "size")
    for key, value in zip(("width", "height", "depth"), (*size, 3), strict=True):
        ElementTree.SubElement(dimensions, key).text = str(value)
    for shape, box, hard in objects:
        found = ElementTree.SubElement(root, "object")
        for key, value in {"name": shape, "pose": "Unspecified", "truncated": 0, "difficult": int(hard)}.items():
            ElementTree.SubElement(found, key).text = str(value)
        corners = ElementTree.SubElement(found, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(corners, key).text = str(value)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode")


if __name__ == "__main__":
    write_voc(Path(sys.argv[1]))
