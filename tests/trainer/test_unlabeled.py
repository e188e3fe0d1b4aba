"""Pretraining on pictures that nobody labeled: which are found, what is left out, and what a run makes of them."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.data import MemoryImages, Splits, load_splits
from ortho_kernels.trainer.data.base import Source
from ortho_kernels.trainer.data.imagefolder import ImageFolder
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.page import render
from ortho_kernels.trainer.report.record import RunRecord
from ortho_kernels.trainer.report.text_summary import summary
from ortho_kernels.trainer.runs.launchers import Outcome
from ortho_kernels.trainer.sweep import as_csv, table

SMALL = ["method=simclr", "data.size=8"]


def noise(path, count=1):
    for i in range(count):
        target = path if count == 1 else path / f"{i:02}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((12, 10), 60 + i).save(target)


def names(root, **options):
    pictures = ImageFolder(root=str(root), size=8, memory_gib=0, **options).load().pretraining
    return [pictures.sources.name(i).removeprefix(f"{root}/") for i in range(len(pictures))]


def test_a_folder_without_train_is_read_at_any_depth_in_the_order_of_names(tmp_path, capsys):
    for name in ("b.png", "a.JPG", "猫/x.png", "猫/深/y.png", "c/z.gif", "test/one.png"):
        noise(tmp_path / name)
    noise(tmp_path / ".hidden.png")
    noise(tmp_path / ".cache" / "x.png")
    (tmp_path / "notes.txt").write_text("")
    assert names(tmp_path) == ["a.JPG", "b.png", "c/z.gif", "test/one.png", "猫/x.png", "猫/深/y.png"]
    assert capsys.readouterr().out == (
        f"data.root={tmp_path}: 6 pictures without labels (there is no folder train). 3 files were left out: 1 .png, 1 "
        "without suffix (hidden); 1 .txt (no pictures).\n"
    )


def test_what_is_no_file_is_never_waited_for(tmp_path, folder, capsys):
    """To open a pipe that nobody writes to takes forever; a link to itself can't even be asked what it is."""
    for place in (tmp_path / "pictures", folder / "train" / "ant"):
        noise(place / "a.png")
        os.mkfifo(place / "pipe.png")
        (place / "link to a pipe.png").symlink_to("pipe.png")
        (place / "itself.png").symlink_to("itself.png")
        (place / "nowhere.png").symlink_to("nobody.png")
    splits = ImageFolder(root=str(tmp_path / "pictures"), size=8).load()
    assert len(splits.pretraining) == 1
    assert [name.rpartition("/")[2] for name in splits.broken] == ["itself.png", "nowhere.png"]
    assert str(splits.left_out) == "2 files were left out: 2 .png (no regular files)."
    with pytest.raises(TrainerError, match=r"itself\.png: Too many levels of symbolic links"):
        ImageFolder(root=str(folder), size=8).load()
    classes = ImageFolder(root=str(folder), size=8, corrupt="skip").load()
    assert len(classes.train) == 7
    assert str(classes.left_out) == str(splits.left_out)


def test_pictures_directly_in_train_have_no_labels(tmp_path, capsys):
    noise(tmp_path / "train", 3)
    noise(tmp_path / "test", 2)
    assert names(tmp_path) == ["train/00.png", "train/01.png", "train/02.png"]
    assert "3 pictures without labels (of train/, which has no class folders)" in capsys.readouterr().out


def test_classes_without_a_test_set_give_no_scores(folder, capsys):
    (folder / "test").rename(folder / "elsewhere")
    assert len(names(folder)) == 6
    assert "6 pictures without labels (of train/: without test/ or val/ there are no scores)" in capsys.readouterr().out
    classes = folder / "classes.txt"
    classes.write_text("ant")
    with pytest.raises(TrainerError, match=r"data\.classes chooses class folders, and .* does not hold both"):
        ImageFolder(root=str(folder), classes=str(classes)).load()


def test_broken_pictures_are_skipped_where_no_label_is_lost_with_them(tmp_path, capsys):
    noise(tmp_path, 4)
    (tmp_path / "01.png").write_bytes(b"broken")
    splits = ImageFolder(root=str(tmp_path), size=8).load()
    assert len(splits.pretraining) == 3
    assert [name.rpartition("/")[2] for name in splits.broken] == ["01.png"]
    assert "01.png: PIL knows no file of this kind. It is left out." in capsys.readouterr().err
    with pytest.raises(TrainerError, match=r"01\.png.*data\.corrupt=skip"):
        ImageFolder(root=str(tmp_path), size=8, corrupt="stop").load()


def test_many_broken_pictures_are_named_in_a_file_alone(tmp_path, capsys):
    noise(tmp_path, 2)
    for i in range(30):
        (tmp_path / f"broken{i:02}.png").write_bytes(b"")
    splits = ImageFolder(root=str(tmp_path), size=8).load()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 21
    assert said[-1] == "More are broken; broken_pictures.txt in the run's folder names all."
    splits.broken.persist(tmp_path / "broken.txt")
    assert len((tmp_path / "broken.txt").read_text().splitlines()) == len(splits.broken) == 30


@pytest.mark.parametrize(
    ("count", "broken", "said"),
    [
        (0, 0, r"holds no pictures at any depth \(\.avif, .*\)\. 1 file was left out: 1 \.txt \(no pictures\)\."),
        (1, 0, "has 1 picture to pretrain on: methods compare pictures, so give more"),
        (0, 5, "None of the 5 pictures can be decoded, .*/0.png among them"),
        (5, 0, r"trainer\.batch_size=16 is larger than the data, which has 5 training images"),
    ],
)
def test_too_few_pictures_are_an_error_before_anything_is_written(tmp_path, run_tiny, count, broken, said):
    pictures = tmp_path / "pictures"
    noise(pictures, count) if count != 1 else noise(pictures / "0.png")
    pictures.mkdir(exist_ok=True)
    for i in range(broken):
        (pictures / f"{i}.png").write_bytes(b"broken")
    (pictures / "notes.txt").write_text("")
    with pytest.raises(TrainerError, match=said):
        run_tiny("data=imagefolder", f"data.root={pictures}", *SMALL)
    assert not list((tmp_path / "runs").glob("*/*"))


def test_broken_pictures_outside_memory_stop_before_anything_is_written(tmp_path, run_tiny):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(20):
        (pictures / f"{i}.png").write_bytes(b"broken")
    with pytest.raises(TrainerError, match="no picture of the sample from it can be decoded"):
        run_tiny("data=imagefolder", f"data.root={pictures}", "data.memory_gib=0", *SMALL)
    assert not list((tmp_path / "runs").glob("*/*"))


def random_picture(generator, i):
    """Of every kind that people gather: 16 bits, CMYK, palettes, transparency, color, gray."""
    kind = i % 6
    channels = {0: None, 1: 4, 2: 3, 3: 4, 4: 3, 5: None}[kind]
    shape = (12, 14) if channels is None else (12, 14, channels)
    pixels = generator.integers(0, 65536 if kind == 0 else 256, shape)
    if kind == 0:
        return Image.fromarray(pixels.astype(np.uint16)), ".png"
    image = Image.fromarray(pixels.astype(np.uint8), {1: "CMYK", 3: "RGBA"}.get(kind))
    return (image.convert("P"), ".gif") if kind == 2 else (image, {1: ".jpg", 3: ".png", 4: ".webp", 5: ".tif"}[kind])


@pytest.fixture
def gathered(tmp_path):
    """2,000 files in a tree of folders: 1,900 pictures, 60 broken ones, 40 others."""
    generator = np.random.default_rng(0)
    root = tmp_path / "收集 的"
    folders = [root, root / "猫", root / "猫" / "深" / "更深", root / "éa b"]
    for each in folders:
        each.mkdir(parents=True)
    for i in range(1900):
        image, suffix = random_picture(generator, i)
        image.save(folders[i % 4] / f"图 {i}{suffix}")
    for i in range(60):
        (folders[i % 4] / f"broken{i}.jpg").write_bytes(b"\xff\xd8\xff" + bytes(i))
    for i in range(20):
        (folders[i % 4] / f"note{i}.txt").write_text("text")
        (folders[i % 4] / f"._{i}.png").write_bytes(b"")
    return root


def test_a_mixed_folder_pretrains_by_one_command_and_its_summary_says_what_was_left_out(gathered, run_tiny, capfd):
    run = run_tiny("data=imagefolder", f"data.root={gathered}", *SMALL)
    out, err = capfd.readouterr()
    results = json.loads((run / "results.json").read_text())
    assert results["train_size"] == 1900
    assert results["broken_pictures"] == 60
    assert results["left_out"] == {"broken": {".jpg": 60}, "hidden": {".png": 20}, "no pictures": {".txt": 20}}
    assert len((run / "broken_pictures.txt").read_text().splitlines()) == 60
    assert "1,960 pictures without labels (there is no folder train). 40 files were left out: " in out
    sentence = "100 files were left out: 60 .jpg (broken); 20 .png (hidden); 20 .txt (no pictures)."
    assert out.partition("\nRun ")[2].count(sentence) == 1
    assert err.count("is left out") == 20
    _check_what_is_said_without_scores(RunRecord.read(run), results, sentence)


def _check_what_is_said_without_scores(record, results, sentence):
    assert not {"knn", "linear_probe", "raw_pixels_knn", "chance", "train_images", "test_images"} & results.keys()
    assert results["representation_images"] == 40
    assert results["representation_effective_rank"] > 1
    assert len(record.representation) == results["representation_dimensions"]
    page, lines = render([record, record]), summary([record])
    for text in (page, lines):
        assert sentence in text
        assert "kNN" not in text
        assert "Effective rank of the feature covariance" in text
    assert "looked at with 40 of these images, without labels and scores" in page
    assert "Nothing is scored" in page
    outcome = Outcome(record.folder)
    listed = table([["seed=0"], ["seed=1"]], [record, record], [outcome, outcome])
    assert "kNN" not in listed
    assert "rank" in listed
    assert as_csv([["seed=0"]], [record], [outcome]).splitlines()[1].startswith("0,,,")


def test_runs_of_different_files_say_what_each_left_out(tmp_path):
    def record(label, left_out):
        results = {"label": label, "settings": {}, "knn": 0.5, "left_out": left_out}
        return RunRecord(tmp_path, results, {}, {}, [], "")

    lines = summary([record("one", {"hidden": {".png": 1}}), record("two", {})]).splitlines()
    assert lines[-2:] == ["one: 1 file was left out: 1 .png (hidden).", "two: no file was left out."]


def test_sources_written_earlier_and_those_without_labels_are_both_taken():
    images = MemoryImages(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.arange(4) % 2)

    class Given(Source):
        splits = Splits(images, images, ["a", "b"])

        def load(self):
            return self.splits

    assert load_splits(Given("given"), ALONE).labeled == (images, images)
    assert load_splits(Given("given"), ALONE).pretraining is images
    Given.splits = Splits(unlabeled=images)
    assert load_splits(Given("given"), ALONE).labeled is None
    Given.splits = Splits(train=images)
    assert load_splits(Given("given"), ALONE).pretraining is images
    assert load_splits(Given("given"), ALONE).labeled is None
    Given.splits = Splits()
    with pytest.raises(TrainerError, match="Splits without pictures: they need unlabeled, or train"):
        load_splits(Given("given"), ALONE)
