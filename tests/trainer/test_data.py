"""Data sources: what they read, and what they say of files that are missing or broken. Nothing is downloaded."""

import gzip
import io
import pickle
import struct
import subprocess
import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from ortho_kernels.trainer.data import debian_packages, fashion_mnist
from ortho_kernels.trainer.data.cifar import CIFAR10, CIFAR100
from ortho_kernels.trainer.data.digits import Digits
from ortho_kernels.trainer.data.fashion_mnist import FILES, FashionMNIST
from ortho_kernels.trainer.data.stl10 import STL10
from ortho_kernels.trainer.errors import TrainerError


def test_digits_are_split_without_overlap():
    splits = Digits().load()
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
    splits = FashionMNIST(root=str(fashion)).load()
    assert splits.train.pixels.shape == (20, 1, 28, 28)
    assert splits.train.pixels.flatten()[:3].tolist() == [0, 1, 2]
    assert splits.test.labels.tolist() == [i % 10 for i in range(20)]
    assert len(splits.classes) == 10


def test_fashion_mnist_that_cannot_be_fetched_says_why_and_what_to_do(tmp_path, offline):
    with pytest.raises(TrainerError, match=r"(?s)no network here.*data=digits"):
        FashionMNIST(root=str(tmp_path)).load()


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
    monkeypatch.setattr(debian_packages, "_run", lambda command, folder: fake_tool(command, tmp_path.__class__(folder)))
    monkeypatch.setattr(debian_packages.shutil, "which", lambda tool: tool)
    splits = FashionMNIST(root=str(tmp_path)).load()
    assert len(splits.train) == 20


def test_a_debian_package_without_package_lists_fetches_its_own(tmp_path, monkeypatch):
    commands = []

    def tool(command, folder):
        commands.append(command)
        if len(commands) == 1:
            raise subprocess.CalledProcessError(100, command, stderr="E: Unable to locate package")

    monkeypatch.setattr(debian_packages, "_run", tool)
    debian_packages._fetch("some-package", tmp_path)
    assert [command[-1] for command in commands] == ["some-package", "update", "some-package"]
    assert all(f"Dir::State::lists={tmp_path / 'lists'}" in command for command in commands[1:])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: content[:6], lambda content: b""])
def test_a_truncated_fashion_mnist_file_is_reported(fashion, offline, name, damage):
    path = fashion / "FashionMNIST" / "raw" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainerError, match=r"corrupt|labels"):
        FashionMNIST(root=str(fashion)).load()


def test_fashion_mnist_files_that_do_not_belong_together_are_reported(fashion, offline):
    (fashion / "FashionMNIST" / "raw" / FILES[1]).write_bytes(idx_labels(7))
    with pytest.raises(TrainerError, match="20 pictures but 7 labels"):
        FashionMNIST(root=str(fashion)).load()


def test_an_unwritable_data_root_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match=r"data\.root=FOLDER"):
        FashionMNIST(root=str(tmp_path / "file")).load()


@pytest.fixture
def unchecked(monkeypatch):
    """torchvision without its checksums: tiny files pass for its data sets."""
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda _: True)


def write_cifar10(root):
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        data = np.arange(4 * 3072, dtype=np.int64).astype(np.uint8).reshape(4, 3072)
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [3, 1, 1, 0]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def test_cifar_is_read_where_it_lies(tmp_path, unchecked):
    write_cifar10(tmp_path)
    splits = CIFAR10(root=str(tmp_path)).load()
    assert (len(splits.train), len(splits.test)) == (20, 4)
    assert splits.train.batch(torch.tensor([0]))[0, 0, 0, :3].tolist() == [0, 1, 2]
    assert splits.train.labels.tolist() == 5 * [3, 1, 1, 0]
    with pytest.raises(TrainerError, match="train_images=10 must be between"):
        CIFAR10(root=str(tmp_path), train_images=10).load()  # classes without a picture


@pytest.mark.parametrize("source", [CIFAR10, CIFAR100, STL10])
def test_offline_the_error_says_what_to_do(tmp_path, monkeypatch, source):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(TrainerError, match=r"could not be fetched \(.*no network here.*data\.root=FOLDER"):
        source(root=str(tmp_path)).load()


def jpeg(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_cifar_is_read_from_an_archive_of_jpeg_pictures(tmp_path):
    files = [jpeg(shade) for shade in (10, 50, 90, 130)]
    header = files[0][: next(i for i, same in enumerate(zip(*files, strict=False)) if len(set(same)) > 1)]
    content = {"header": np.frombuffer(header, np.uint8)}
    for split, chosen in (("train", files[:3]), ("test", files[3:])):
        bodies = [file[len(header) :] for file in chosen]
        content[split] = np.frombuffer(b"".join(bodies), np.uint8)
        content[f"{split}_off"] = np.cumsum([0, *map(len, bodies)])
        content[f"{split}_y"] = np.arange(len(chosen))
    path = tmp_path / "cifar10.npz"
    np.savez(path, **content)
    splits = CIFAR10(root=str(path)).load()
    assert splits.train.batch(torch.arange(3))[:, 0, 0, 0].tolist() == [10, 50, 90]
    assert splits.test.labels.tolist() == [0]
    np.savez(path, header=content["header"])
    with pytest.raises(TrainerError, match="no readable archive"):
        CIFAR10(root=str(path)).load()


def test_stl10_pretrains_on_its_pictures_without_labels_from_their_file(tmp_path, unchecked):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    content = np.random.default_rng(0).integers(0, 256, (4, 3, 96, 96), dtype=np.uint8)
    for name in ("train_X.bin", "test_X.bin", "unlabeled_X.bin"):
        content.tofile(folder / name)
    for name in ("train_y.bin", "test_y.bin"):
        np.array([1, 2, 3, 10], dtype=np.uint8).tofile(folder / name)
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    splits = STL10(root=str(tmp_path)).load()
    assert splits.train.labels.tolist() == [0, 1, 2, 9]
    everything = torch.arange(4)
    assert splits.pretraining is splits.unlabeled
    assert torch.equal(splits.pretraining.batch(everything), splits.train.batch(everything))
    for_a_worker = pickle.dumps(splits.unlabeled)
    assert len(for_a_worker) < 1000
    assert torch.equal(pickle.loads(for_a_worker).batch(everything), splits.unlabeled.batch(everything))
