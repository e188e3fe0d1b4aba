"""Class folders of pictures: what is found, in which order, and what is said of the rest."""

import os
import threading

import pytest
import torch
import torchvision
from PIL import Image

from ortho_kernels.trainer.data import class_folders, encoded, load_splits
from ortho_kernels.trainer.data.class_folders import SUFFIXES, suffixes
from ortho_kernels.trainer.data.imagefolder import ImageFolder, ImageNet100
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.errors import TrainerError


def test_an_image_folder_is_read_in_the_order_of_its_names(folder):
    splits = ImageFolder(root=str(folder), size=8).load()
    assert splits.classes == ["ant", "bee"]
    pixels = splits.train.batch(torch.arange(6))
    assert pixels.shape == (6, 3, 8, 8)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert pixels[:, 0, 4, 4].tolist() == [0, 40, 80, 10, 50, 90]
    assert len(splits.test) == 4


def test_gray_pictures_become_color(folder):
    Image.new("L", (8, 8), 77).save(folder / "train" / "ant" / "0.png")
    splits = ImageFolder(root=str(folder), size=8).load()
    assert splits.train.batch(torch.tensor([0]))[0, :, 0, 0].tolist() == [77, 77, 77]


def test_a_corrupt_picture_is_named(folder):
    broken = folder / "train" / "bee" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(TrainerError, match=r"train/bee/1\.png"):
        ImageFolder(root=str(folder)).load()


def test_a_missing_root_or_split_is_explained(folder, tmp_path):
    with pytest.raises(TrainerError, match=r"needs data\.root"):
        ImageFolder().load()
    with pytest.raises(TrainerError, match=r"^data\.root=.*nowhere: there is no such folder or file"):
        ImageFolder(root=str(tmp_path / "nowhere")).load()


def test_folders_without_classes_or_pictures_are_explained(folder):
    for picture in (folder / "test" / "ant").iterdir():
        picture.unlink()
    with pytest.raises(TrainerError, match="test/ant holds no pictures"):
        ImageFolder(root=str(folder)).load()
    (folder / "test" / "ant").rmdir()
    (folder / "test" / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "test" / "cat" / "0.png")
    with pytest.raises(TrainerError, match="lacks: cat"):
        ImageFolder(root=str(folder)).load()


def test_pictures_beyond_the_memory_allowed_are_decoded_when_a_batch_needs_them(folder):
    held = ImageFolder(root=str(folder), size=8).load()
    decoded = ImageFolder(root=str(folder), size=8, memory_gib=0).load()
    indices = torch.tensor([5, 0, 3])
    assert held.train.in_memory
    assert not decoded.train.in_memory
    assert torch.equal(decoded.train.batch(indices), held.train.batch(indices))
    assert torch.equal(decoded.train.select(indices).batch(torch.tensor([1])), held.train.batch(indices[1:2]))
    assert decoded.channels == 3


def test_imagenet_has_its_own_folder_names_and_a_list_chooses_classes(folder, tmp_path):
    (folder / "test").rename(folder / "val")
    chosen = tmp_path / "classes.txt"
    chosen.write_text("bee\n")
    source = ImageNet100(root=str(folder), classes=str(chosen))
    splits = source.load()
    assert splits.classes == ["bee"]
    assert splits.train.batch(torch.tensor([0])).shape == (1, 3, 256, 256)
    chosen.write_text("bee\ncow\n")
    with pytest.raises(TrainerError, match=r"lacks classes that data\.classes lists: cow"):
        source.load()


def test_class_folders_are_read_as_by_torchvision_at_any_depth(folder):
    picture = folder / "train" / "ant" / "0.png"
    for place in ("deep/er/z.png", "deep/a.jpeg", "other/b.PNG", "e.png/c.png"):
        target = folder / "train" / "ant" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(picture.read_bytes())
    (folder / "elsewhere" / "below").mkdir(parents=True)
    (folder / "elsewhere" / "below" / "linked.png").write_bytes(picture.read_bytes())
    (folder / "train" / "bee" / "link").symlink_to(folder / "elsewhere")
    theirs = torchvision.datasets.ImageFolder(str(folder / "train"))
    ours = ImageFolder(root=str(folder), memory_gib=0).load().train
    assert [(ours.sources.name(i), int(ours.labels[i])) for i in range(len(ours))] == theirs.samples
    assert len(ours) == 11


def test_folders_that_hold_themselves_are_entered_once(folder, capsys):
    (folder / "train" / "bee" / "again").symlink_to(folder / "train" / "bee")
    (folder / "train" / "ant" / "deep").mkdir()
    (folder / "train" / "ant" / "deep" / "up").symlink_to(folder / "train" / "ant")
    splits = ImageFolder(root=str(folder)).load()
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert "2 without suffix (folders that hold themselves)" in capsys.readouterr().out


def test_what_is_left_out_is_said_in_one_line(folder, capsys):
    ImageFolder(root=str(folder)).load()
    assert capsys.readouterr().out == ""
    bee = folder / "train" / "bee"
    for name in ("a.txt", "b.TXT", "c.json", "README"):
        (bee / name).write_text("")
    for name in (".DS_Store", "._0.png", "._1.png"):
        (bee / name).write_text("")
    (folder / "train" / ".cache").mkdir()
    (folder / "train" / "loose.png").write_bytes((bee / "0.png").read_bytes())
    splits = ImageFolder(root=str(folder)).load()
    assert len(splits.train) == 6
    assert capsys.readouterr().out == (
        f"data.root={folder}: 9 files were left out: 1 .png (beside the class folders); 2 .png, 2 without suffix (hidden); "
        "2 .txt, 1 .json, 1 without suffix (no pictures).\n"
    )


def test_numbered_files_and_names_that_are_no_text_stay_in_the_line(folder, capsys):
    ant = os.fsencode(folder / "train" / "ant")
    for name in (b"x.\xff\xfe", b"y.a\nb", *(b"scan.%03d" % i for i in range(100))):
        with open(ant + b"/" + name, "wb"):
            pass
    ImageFolder(root=str(folder)).load()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "102 files were left out: 1 .000, 1 .001, " in said
    assert said.endswith("94 of other kinds (no pictures).\n")
    said.encode("utf-8", "strict")
    for number in range(100):
        os.remove(ant + b"/scan.%03d" % number)
    ImageFolder(root=str(folder)).load()
    assert r"1 .a\nb, 1 .\udcff\udcfe (no pictures)" in capsys.readouterr().out


def test_pictures_of_every_suffix_that_pil_opens_are_used(folder, capsys, monkeypatch):
    bee = folder / "train" / "bee"
    kinds = {".jp2": "JPEG2000", ".avif": "AVIF", ".jpe": "JPEG", ".jfif": "JPEG", ".tga": "TGA", ".JPG": "JPEG"}
    usable = {suffix: kind for suffix, kind in kinds.items() if suffix.lower() in suffixes()}  # AVIF is optional
    for suffix, kind in usable.items():
        Image.new("RGB", (16, 16), (250, 100, 50)).save(bee / f"x{suffix}", kind)
    assert {".jp2", ".jpe", ".jfif", ".tga"} <= set(usable)
    assert len(ImageFolder(root=str(folder)).load().train) == 6 + len(usable)
    assert {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"} <= SUFFIXES  # torchvision's
    monkeypatch.setattr(class_folders, "suffixes", lambda: suffixes() - {".jp2"})
    assert len(ImageFolder(root=str(folder)).load().train) == 5 + len(usable)
    assert "1 file was left out: 1 .jp2 (pictures that PIL can't open here)." in capsys.readouterr().out


def test_imagenet_has_labels(folder):
    (folder / "train").rename(folder / "pictures")
    with pytest.raises(
        TrainerError, match=r"data=imagenet100 needs .* train/CLASS/ .*without labels give data=imagefol"
    ):
        ImageNet100(root=str(folder)).load()


def test_names_that_are_no_utf8_are_read(folder):
    name = os.fsencode(folder / "train" / "ant") + b"/\xff\xfe.png"
    with open(name, "wb") as file:
        file.write((folder / "train" / "ant" / "0.png").read_bytes())
    images = ImageFolder(root=str(folder), memory_gib=0).load().train
    assert len(images.batch(torch.arange(7))) == 7


def test_long_work_shows_how_far_it_is(folder, capsys, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.data.encoded.TRIED", 0)
    monkeypatch.setattr("ortho_kernels.trainer.data.encoded.BLOCK", 2)
    monkeypatch.setattr("ortho_kernels.trainer.data.encoded.FIRST_SECONDS", 0.0)
    monkeypatch.setattr("ortho_kernels.trainer.data.encoded.LINE_SECONDS", 0.0)
    ImageFolder(root=str(folder)).load()
    assert capsys.readouterr().out.splitlines()[:2] == [
        "Decoding: 2 of 6 pictures ...",
        "Decoding: 4 of 6 pictures ...",
    ]


@pytest.mark.parametrize("short_seconds", [0.0, 1e9])
def test_what_is_short_is_no_work_for_threads(monkeypatch, short_seconds):
    monkeypatch.setattr(encoded, "SHORT_SECONDS", short_seconds)
    monkeypatch.setattr(encoded, "BLOCK", 7)
    workers = set()

    def work(index):
        workers.add(threading.current_thread())
        return index * index

    assert list(encoded.results_of("Squaring", work, 40)) == [index * index for index in range(40)]
    assert list(encoded.results_of("Squaring", work, 3)) == [0, 1, 4]  # fewer than are tried
    assert (workers == {threading.current_thread()}) == (short_seconds > 0)


def test_a_list_of_classes_may_come_from_windows_and_must_be_text(folder, tmp_path):
    file = tmp_path / "classes.txt"
    file.write_bytes(b"\xef\xbb\xbfant\r\nbee\r\n")
    assert ImageFolder(root=str(folder), classes=str(file)).load().classes == ["ant", "bee"]
    file.write_bytes("ant\nbee\n".encode("utf-16"))
    with pytest.raises(TrainerError, match=r"data\.classes=\S+ is no text in UTF-8: save it so"):
        ImageFolder(root=str(folder), classes=str(file)).load()


def test_a_test_set_of_one_picture_gives_no_score(folder):
    for name in ("ant/0.png", "ant/1.png", "bee/1.png"):
        (folder / "test" / name).unlink()
    (folder / "test" / "ant").rmdir()
    with pytest.raises(TrainerError, match="has 1 picture to test on: a score needs 2 at least"):
        load_splits(ImageFolder(root=str(folder)), ALONE)
