"""Pictures with boxes in VOC's layout: what is read, and what is refused in which words."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import VOCDetection
from voc_pictures import COLORS, SHAPES, draw, write_voc

from ortho_kernels.trainer.detection.voc import VOC_CLASSES, read_voc
from ortho_kernels.trainer.errors import TrainerError

ONE = """<annotation><size><width>40</width><height>30</height><depth>3</depth></size>
<object><name>dog</name><difficult>0</difficult>
  <part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>
  <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
<object><name>person</name><difficult>1</difficult>
  <bndbox><xmin>11</xmin><ymin>6</ymin><xmax>11</xmax><ymax>25.5</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def one(tmp_path):
    """Writes a set of one picture with this annotation; returns its root."""

    def write(annotation=ONE, size=(40, 30)):
        folder = tmp_path / "VOCdevkit" / "VOC2007"
        for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (folder / part).mkdir(parents=True)
        Image.new("RGB", size).save(folder / "JPEGImages" / "000007.jpg")
        (folder / "Annotations" / "000007.xml").write_text(annotation)
        (folder / "ImageSets" / "Main" / "test.txt").write_text("000007\n")
        return tmp_path

    return write


def test_an_annotation_is_read(one):
    """A box of the whole picture is (0, 0, width, height); a box of one column of pixels is 1 wide."""
    pixels, truth = read_voc(one(), [("2007", "test")])[0]
    assert pixels.shape == (3, 30, 40)
    assert pixels.dtype == torch.uint8
    assert truth.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 11, 25.5]]
    assert [VOC_CLASSES[label - 1] for label in truth.labels] == ["dog", "person"]
    assert truth.difficult.tolist() == [False, True]
    assert truth.name == "VOC2007/000007"


def test_sets_follow_one_another(tmp_path):
    write_voc(tmp_path, {("2007", "trainval"): 3, ("2007", "test"): 1, ("2012", "trainval"): 2})
    voc = read_voc(tmp_path, [("2012", "trainval"), ("2007", "trainval")], SHAPES)
    assert [truth.name for truth in voc.truths] == [
        *("VOC2012/000005", "VOC2012/000006", "VOC2007/000001", "VOC2007/000002", "VOC2007/000003")
    ]
    inside = read_voc(tmp_path / "VOCdevkit", [("2007", "test")], SHAPES)
    assert len(inside) == 1


def test_torchvision_reads_the_same(tmp_path):
    write_voc(tmp_path, {("2007", "test"): 8}, difficult=0.5)
    voc, other = read_voc(tmp_path, [("2007", "test")], SHAPES), VOCDetection(tmp_path, "2007", "test")
    assert len(voc) == len(other) == 8
    for i, (picture, annotation) in enumerate(other):
        pixels, truth = voc[i]
        assert torch.equal(pixels, torch.tensor(list(picture.tobytes())).view(90, 120, 3).permute(2, 0, 1))
        objects = annotation["annotation"]["object"]
        assert [SHAPES[label - 1] for label in truth.labels] == [found["name"] for found in objects]
        assert [str(int(hard)) for hard in truth.difficult] == [found["difficult"] for found in objects]
        for box, found in zip((truth.boxes + torch.tensor([1, 1, 0, 0])).tolist(), objects, strict=True):
            assert box == [float(found["bndbox"][corner]) for corner in ("xmin", "ymin", "xmax", "ymax")]


def test_a_generated_box_fits_its_shape():
    """The pixels of a shape's color reach from edge to edge of its box, and no further."""
    for number in range(20):
        picture, objects = draw(np.random.default_rng(number), 120, 90, difficult=0.1)
        pixels = np.asarray(picture)
        for _, (left, top, right, bottom), _ in objects:
            color = pixels[bottom - 2, (left + right) // 2]  # within every shape
            assert tuple(color) in COLORS
            near = pixels[max(top - 4, 0) : bottom + 3, max(left - 4, 0) : right + 3]
            rows, columns = np.nonzero((near == color).all(axis=2))
            assert (rows.min(), columns.min()) == (min(3, top - 1), min(3, left - 1))
            assert (np.ptp(rows), np.ptp(columns)) == (bottom - top, right - left)
        assert objects


def test_a_box_of_one_pixel_too_much_is_cut(one):
    """As programs write it that count from 0."""
    _, truth = read_voc(one(ONE.replace("<xmin>1<", "<xmin>0<").replace(">40</xmax", ">41</xmax")), [("2007", "test")])[
        0
    ]
    assert truth.boxes[0].tolist() == [0, 0, 40, 30]


BOX = re.compile(r"\n  <bndbox>(?:(?!</bndbox>).)*</bndbox>", re.DOTALL)
WRONG = {
    "no box": (
        BOX.sub("", ONE),
        r"000007.xml: object 1 \(dog\) has no box. Give it a bndbox of xmin, ymin, xmax, ymax",
    ),
    "half a box": (
        ONE.replace("<ymin>6</ymin>", ""),
        r"object 2 \(person\): its box needs a number for ymin, and has none",
    ),
    "words": (ONE.replace(">25.5<", ">many<"), "its box needs a number for ymax, and has 'many'"),
    "no number": (ONE.replace(">25.5<", ">nan<"), "its box needs a number for ymax, and has 'nan'"),
    "class": (
        ONE.replace(">dog<", ">dgo<"),
        "object 1 is of the class 'dgo', which is not in the list. Did you mean dog?",
    ),
    "outside": (
        ONE.replace(">40</xmax", ">42</xmax"),
        r"the box \(xmin=1.*xmax=42.*leaves its picture of 40 x 30 pixels",
    ),
    "left": (ONE.replace("<xmin>1<", "<xmin>-1<"), "leaves its picture"),
    "no area": (ONE.replace("<xmin>11<", "<xmin>12<"), r"object 2 \(person\): the box .* has no area"),
    "no size": (ONE.replace("<width>40</width>", ""), "the picture's size needs a number for width, and has none"),
    "empty": ("<annotation><size><width>4</width><height>3</height></size></annotation>", "000007.xml has no object"),
    "no XML": ("<annotation>", "000007.xml is no XML"),
    "difficult": (
        ONE.replace("<difficult>1<", "<difficult>true<"),
        r"object 2 \(person\): difficult is 0 or 1, and here 'true'",
    ),
    "no encoding": (
        f'<?xml version="1.0" encoding="foo"?>{ONE}',
        "000007.xml: unknown encoding: foo. Save it in UTF-8",
    ),
    "wide encoding": (
        f'<?xml version="1.0" encoding="gb2312"?>{ONE}',
        "000007.xml: multi-byte encodings are not supported. Save it in UTF-8",
    ),
}


@pytest.mark.parametrize(("annotation", "words"), WRONG.values(), ids=WRONG)
def test_wrong_annotations_are_refused(one, annotation, words):
    assert annotation != ONE
    with pytest.raises(TrainerError, match=words):
        read_voc(one(annotation), [("2007", "test")])


def test_a_list_of_any_editor_is_read(one):
    root = one()
    file = root / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "test.txt"
    file.write_bytes(b"\xef\xbb\xbf000007\r\n")
    assert [truth.name for truth in read_voc(root, [("2007", "test")]).truths] == ["VOC2007/000007"]
    file.write_bytes("000007\n".encode("utf-16"))
    with pytest.raises(TrainerError, match=r"Cannot read .*test.txt: 'utf-8' codec.* Save it in UTF-8"):
        read_voc(root, [("2007", "test")])


def test_a_class_is_listed_once(one):
    with pytest.raises(TrainerError, match=r"names dog twice: dog, person, dog\. Name each once"):
        read_voc(one(), [("2007", "test")], ["dog", "person", "dog"])


def test_what_is_missing_is_named(one):
    root = one()
    with pytest.raises(TrainerError, match=r"trainval.txt: No such file.*has no such set. It has to hold VOCdevkit"):
        read_voc(root, [("2007", "trainval")])
    with pytest.raises(TrainerError, match="Name one set"):
        read_voc(root, [])
    folder = root / "VOCdevkit" / "VOC2007"
    (folder / "JPEGImages" / "000007.jpg").rename(folder / "JPEGImages" / "other.jpg")
    with pytest.raises(TrainerError, match=r"000007.jpg is missing, and test.txt lists it"):
        read_voc(root, [("2007", "test")])
    (folder / "Annotations" / "000007.xml").unlink()
    with pytest.raises(TrainerError, match=r"Cannot read the annotation .*000007.xml"):
        read_voc(root, [("2007", "test")])
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n")
    with pytest.raises(TrainerError, match=r"test.txt lists no picture"):
        read_voc(root, [("2007", "test")])


def test_a_picture_of_another_size_is_refused(one):
    voc = read_voc(one(size=(30, 40)), [("2007", "test")])
    with pytest.raises(TrainerError, match=r"000007.jpg is 30 x 40, its annotation says 40 x 30"):
        voc[0]
