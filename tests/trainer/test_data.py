"""Data sources: what they read, and what they say of files that are missing or broken. Nothing is downloaded."""

import gzip
import struct
import subprocess

import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.data import fashion_mnist
from ortho_kernels.trainer.data.digits import DigitsSettings, load_digits
from ortho_kernels.trainer.data.fashion_mnist import FILES, FashionMNISTSettings, load_fashion_mnist
from ortho_kernels.trainer.data.imagefolder import ImageFolderSettings, load_imagefolder
from ortho_kernels.trainer.errors import TrainerError


def test_digits_are_split_without_overlap():
    splits = load_digits(DigitsSettings())
    assert len(splits.train) + len(splits.test) == 1797
    assert splits.channels == 1
    assert splits.train.pixels.dtype == torch.uint8
    assert set(splits.test.labels.tolist()) == set(range(10))


def idx_images(count):
    return struct.pack(">iiii", 0x803, count, 28, 28) + bytes(i % 251 for i in range(count * 28 * 28))


def idx_labels(count):
    return struct.pack(">ii", 0x801, count) + bytes(i % 10 for i in range(count))


CONTENT = {name: idx_images(20) if "images" in name else idx_labels(20) for name in FILES}


@pytest.fixture
def fashion(tmp_path):
    """A data root with four tiny files, and no way to fetch others."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in CONTENT.items():
        (raw / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    def refuse(root, raw):
        raise OSError("no network here")

    monkeypatch.setattr(fashion_mnist, "_download", refuse)
    monkeypatch.setattr(fashion_mnist, "_unpack_debian_package", refuse)


def test_fashion_mnist_is_read_where_it_lies(fashion, offline):
    splits = load_fashion_mnist(FashionMNISTSettings(root=str(fashion)))
    assert splits.train.pixels.shape == (20, 1, 28, 28)
    assert splits.train.pixels.flatten()[:3].tolist() == [0, 1, 2]
    assert splits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert len(splits.classes) == 10


def test_fashion_mnist_that_cannot_be_fetched_says_why_and_what_to_do(tmp_path, offline):
    with pytest.raises(TrainerError, match=r"(?s)no network here.*data=digits"):
        load_fashion_mnist(FashionMNISTSettings(root=str(tmp_path)))


def test_fashion_mnist_comes_from_the_debian_package_if_the_download_fails(tmp_path, monkeypatch):
    def failed_download(root, raw):
        raise RuntimeError("Error downloading")

    def fake_tool(command, folder):
        if command[0] == "apt-get":
            (folder / "dataset.deb").write_bytes(b"package")
            return
        share = folder / "unpacked" / "usr" / "share" / "datasets" / "fashion-mnist"
        share.mkdir(parents=True)
        for name, content in CONTENT.items():
            (share / f"{name}.gz").write_bytes(gzip.compress(content))

    monkeypatch.setattr(fashion_mnist, "_download", failed_download)
    monkeypatch.setattr(fashion_mnist, "_run", lambda command, folder: fake_tool(command, tmp_path.__class__(folder)))
    monkeypatch.setattr(fashion_mnist.shutil, "which", lambda tool: tool)
    splits = load_fashion_mnist(FashionMNISTSettings(root=str(tmp_path)))
    assert len(splits.train) == 20


def test_fashion_mnist_without_package_lists_fetches_its_own(tmp_path, monkeypatch):
    commands = []

    def tool(command, folder):
        commands.append(command)
        if len(commands) == 1:
            raise subprocess.CalledProcessError(100, command, stderr="E: Unable to locate package")

    monkeypatch.setattr(fashion_mnist, "_run", tool)
    fashion_mnist._fetch_package(tmp_path)
    assert [command[-1] for command in commands] == [fashion_mnist.PACKAGE, "update", fashion_mnist.PACKAGE]
    assert all(f"Dir::State::lists={tmp_path / 'lists'}" in command for command in commands[1:])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: content[:6], lambda content: b""])
def test_a_truncated_fashion_mnist_file_is_reported(fashion, offline, name, damage):
    path = fashion / "FashionMNIST" / "raw" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainerError, match=r"corrupt|labels"):
        load_fashion_mnist(FashionMNISTSettings(root=str(fashion)))


def test_fashion_mnist_files_that_do_not_belong_together_are_reported(fashion, offline):
    (fashion / "FashionMNIST" / "raw" / FILES[1]).write_bytes(idx_labels(7))
    with pytest.raises(TrainerError, match="20 pictures but 7 labels"):
        load_fashion_mnist(FashionMNISTSettings(root=str(fashion)))


def test_an_unwritable_data_root_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match=r"data\.root=FOLDER"):
        load_fashion_mnist(FashionMNISTSettings(root=str(tmp_path / "file")))


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                shade = 40 * i + 10 * (name == "bee")
                Image.new("RGB", (12, 9), (shade, 0, 255)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def test_an_image_folder_is_read_in_the_order_of_its_names(folder):
    splits = load_imagefolder(ImageFolderSettings(root=str(folder), size=8))
    assert splits.classes == ["ant", "bee"]
    assert splits.train.pixels.shape == (6, 3, 8, 8)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.train.pixels[:, 0, 4, 4].tolist() == [0, 40, 80, 10, 50, 90]
    assert len(splits.test) == 4


def test_grey_pictures_become_colour(folder):
    Image.new("L", (8, 8), 77).save(folder / "train" / "ant" / "0.png")
    splits = load_imagefolder(ImageFolderSettings(root=str(folder), size=8))
    assert splits.train.pixels[0, :, 0, 0].tolist() == [77, 77, 77]


def test_a_corrupt_picture_is_named(folder):
    broken = folder / "train" / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(TrainerError, match=r"train/bee/1\.png"):
        load_imagefolder(ImageFolderSettings(root=str(folder)))


def test_a_missing_root_or_split_is_explained(folder, tmp_path):
    with pytest.raises(TrainerError, match=r"needs data\.root"):
        load_imagefolder(ImageFolderSettings())
    with pytest.raises(TrainerError, match=r"Cannot read .*nowhere/train"):
        load_imagefolder(ImageFolderSettings(root=str(tmp_path / "nowhere")))


def test_folders_without_classes_or_pictures_are_explained(folder):
    for picture in (folder / "test" / "ant").iterdir():
        picture.unlink()
    with pytest.raises(TrainerError, match="test/ant holds no pictures"):
        load_imagefolder(ImageFolderSettings(root=str(folder)))
    (folder / "test" / "ant").rmdir()
    (folder / "test" / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "test" / "cat" / "0.png")
    with pytest.raises(TrainerError, match="lacks: cat"):
        load_imagefolder(ImageFolderSettings(root=str(folder)))


def test_more_pictures_than_memory_allows_are_refused_before_they_are_read(folder):
    with pytest.raises(TrainerError, match=r"raise it, or lower data\.size"):
        load_imagefolder(ImageFolderSettings(root=str(folder), memory_gib=1e-9))
