"""data.corrupt=skip: a broken picture is left out, replaced by a draw, named and counted once, and never mislabeled."""

import json
import multiprocessing
import os
from functools import partial

import pytest
import torch
from PIL import Image
from torch import nn

from ortho_kernels.trainer.data import Splits, load_splits, require_variance
from ortho_kernels.trainer.data.broken import BrokenPictures
from ortho_kernels.trainer.data.encoded import EncodedImages
from ortho_kernels.trainer.data.imagefolder import ImageFolder
from ortho_kernels.trainer.data.order import Order
from ortho_kernels.trainer.data.picture_sources import PictureFiles
from ortho_kernels.trainer.data.stream import BatchStream
from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.distributed import processes
from ortho_kernels.trainer.distributed.processes import ALONE, Ranks, launch_processes
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.probes.evaluation import EvaluationSettings, evaluate
from ortho_kernels.trainer.probes.features import extract


def cut(path):
    """Its header can be read, its pixels can't."""
    Image.effect_noise((40, 40), 80).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:600])


def load(folder, **options):
    return ImageFolder(root=str(folder), size=8, corrupt="skip", **options).load()


@pytest.mark.parametrize("memory_gib", [0, 1])
def test_a_picture_without_a_header_is_dropped_with_its_label(folder, capsys, memory_gib):
    (folder / "train" / "bee" / "1.png").write_bytes(b"no picture")
    (folder / "test" / "ant" / "0.png").write_bytes(b"")
    splits = load(folder, memory_gib=memory_gib)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.train.batch(torch.arange(5))[:, 0, 4, 4].tolist() == [0, 40, 80, 10, 90]
    assert splits.test.labels.tolist() == [0, 1, 1]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(splits.broken) == 2
    assert said[0].endswith("train/bee/1.png: PIL knows no file of this kind. It is left out.")


def test_pictures_that_are_decoded_into_memory_are_all_checked(folder):
    cut(folder / "train" / "bee" / "1.png")
    splits = load(folder)
    assert splits.train.labels.tolist() == [0, 0, 0, 1, 1]
    assert splits.train.batch(torch.arange(5))[:, 0, 4, 4].tolist() == [0, 40, 80, 10, 90]


def test_only_headers_are_read_before_pictures_that_stay_files(folder, capsys):
    cut(folder / "train" / "bee" / "1.png")
    splits = load(folder, memory_gib=0)
    assert len(splits.train) == 6
    assert len(splits.broken) == 0
    pixels, readable = splits.train.read(torch.tensor([5, 4, 0]))
    assert pixels[:, 0, 4, 4].tolist() == [90, 0]
    assert readable.tolist() == [True, False, True]
    splits.train.read(torch.tensor([4]))
    said = capsys.readouterr().err
    assert said.count("train/bee/1.png") == said.count("left out") == len(splits.broken) == 1


@pytest.mark.parametrize("memory_gib", [0, 1])
def test_nothing_but_broken_pictures_is_an_error(folder, memory_gib):
    for picture in (folder / "train").rglob("*.png"):
        picture.write_bytes(b"")
    with pytest.raises(TrainerError, match="None of the 6 pictures can be decoded"):
        load(folder, memory_gib=memory_gib)


@pytest.fixture
def some_broken(tmp_path):
    """Pictures 0 to 11, each of its own shade; numbers 2, 3, 8 have lost their pixels."""
    for i in range(12):
        path = tmp_path / f"{i:02}.png"
        cut(path) if i in (2, 3, 8) else Image.new("L", (8, 8), i).save(path)
    return tmp_path


@pytest.mark.parametrize("memory_gib", [0, 1])
@pytest.mark.parametrize(("split", "count"), [("train", 3), ("test", 2)])
def test_a_class_of_broken_pictures_is_an_error(folder, memory_gib, split, count):
    for picture in (folder / split / "bee").iterdir():
        picture.write_bytes(b"")
    with pytest.raises(
        TrainerError, match=rf"None of the {count} pictures in \S+/{split}/bee can be decoded.*data.classes"
    ):
        load(folder, memory_gib=memory_gib)


@pytest.mark.parametrize("memory_gib", [0, 1])
def test_names_of_any_bytes_are_counted_and_named_once(folder, tmp_path, capsys, memory_gib):
    names = [b"x\ny.png", "x\u2028z.png".encode(), b"\xff\xfe.png"]
    for name in names:
        with open(os.path.join(os.fsencode(folder / "train" / "ant"), name), "wb"):
            pass
    for _ in range(2):  # a run and its resume
        broken = load(folder, memory_gib=memory_gib).broken
        broken.persist(tmp_path / "broken.txt")
        assert len(broken) == 3
    listed = (tmp_path / "broken.txt").read_text("utf-8").splitlines()
    assert [name.rpartition("/")[2] for name in listed] == [r"\udcff\udcfe.png", r"x\ny.png", r"x\u2028z.png"]
    assert len(capsys.readouterr().err.splitlines()) == 6


def images(folder, broken=None):
    paths = PictureFiles.of(bytes(folder) + b"/", [f"{i:02}.png".encode() for i in range(12)])
    return EncodedImages(paths, torch.arange(12) % 3, 8, BrokenPictures() if broken is None else broken)


def shades(folder, ranks=ALONE, workers=0, position=0):
    stream = BatchStream(images(folder), Order(12, 4, seed=0, ranks=ranks), batches=9, workers=workers)
    stream.load_state_dict({"position": position, "images": 12})
    return [pixels[:, 0, 0, 0].tolist() for pixels, _ in stream]


def test_another_picture_stands_in_wherever_and_by_whomever_it_is_drawn(some_broken):
    whole = shades(some_broken)
    assert not {2, 3, 8} & {shade for batch in whole for shade in batch}
    order = Order(12, 4, seed=0)
    drawn = [order.part(order.epoch(number // 3), number % 3).tolist() for number in range(9)]
    replaced = [
        (place, shade)
        for batch, found in zip(drawn, whole, strict=True)
        for place, shade in zip(batch, found, strict=True)
        if place in (2, 3, 8)
    ]
    assert len(replaced) == 9  # each once an epoch
    assert len({shade for place, shade in replaced if place == 2}) > 1  # not one and the same neighbor
    unbroken = [[p for p in batch if p not in (2, 3, 8)] for batch in drawn]
    kept = [[s for p, s in zip(b, f, strict=True) if p not in (2, 3, 8)] for b, f in zip(drawn, whole, strict=True)]
    assert kept == unbroken
    assert shades(some_broken, position=5) == whole[5:]
    halves = [shades(some_broken, Ranks(rank, 2)) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole


def test_workers_replace_alike_and_name_each_once(some_broken, capfd):
    broken = BrokenPictures()
    broken.persist(some_broken / "broken_pictures.txt")
    stream = BatchStream(images(some_broken, broken), Order(12, 4, seed=0), batches=9, workers=2)
    assert [pixels[:, 0, 0, 0].tolist() for pixels, _ in stream] == shades(some_broken)
    assert len(broken) == 3
    said = [line for line in capfd.readouterr().err.splitlines() if "left out" in line]
    ours = (some_broken / "broken_pictures.txt").read_text().splitlines()
    assert sorted(set(ours)) == [str(some_broken / f"{i:02}.png") for i in (2, 3, 8)]
    assert len(said) >= 3  # this process names them again: its list is not in the file
    again = BrokenPictures()
    again.persist(some_broken / "broken_pictures.txt")
    images(some_broken, again).read(torch.tensor([2, 3, 8]))
    assert capfd.readouterr().err == ""
    assert len(again) == 3


def test_an_error_in_a_worker_keeps_its_words(some_broken):
    stopping = images(some_broken)
    stopping.broken = None
    stream = BatchStream(stopping, Order(12, 4, seed=0), batches=9, workers=1)
    with pytest.raises(TrainerError, match=r"^Cannot decode the picture .*png: .* data\.corrupt=skip\.$"):
        list(stream)


def test_nothing_but_broken_pictures_stops_the_stream(some_broken):
    stream = BatchStream(images(some_broken).select(torch.tensor([2, 3, 8])), Order(3, 3, seed=0), batches=1)
    with pytest.raises(TrainerError, match="None of 1,000 pictures drawn at random can be decoded"):
        list(stream)


def test_evaluation_leaves_them_out_of_features_labels_and_counts(some_broken):
    held = images(some_broken)
    sound = torch.tensor([0, 1, 4, 5, 6, 7, 9, 10, 11])
    alone = held.select(sound).decode()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    views = Views(plan_views("two", ViewSettings(), 8), 8, held.sample(), seed=0)
    settings = EvaluationSettings(neighbors=1, batch_size=4)
    ours, features = evaluate(encoder, views, Splits(held, held, ["a", "b", "c"]), settings, seed=0)
    theirs, expected = evaluate(encoder, views, Splits(alone, alone, ["a", "b", "c"]), settings, seed=0)
    assert ours == theirs
    assert ours.train_images == ours.test_images == 9
    assert ours.chance == 4 / 9
    torch.testing.assert_close(features, expected)
    assert torch.equal(extract(encoder, views.plain, held, 4).labels, sound % 3)
    with pytest.raises(TrainerError, match="drew 2 pictures, and none of them"):
        extract(encoder, views.plain, held.select(torch.tensor([2, 8])), 4)


def test_one_picture_gives_no_score(some_broken):
    held = images(some_broken)
    views = Views(plan_views("two", ViewSettings(), 8), 8, held.sample(), seed=0)
    with pytest.raises(TrainerError, match="drew 2 pictures, and 1 of them can be decoded, where a score needs 2"):
        extract(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), views.plain, held.select(torch.tensor([1, 2])), 4)


@pytest.fixture
def noisy(tmp_path):
    """A folder of 20 + 20 and 6 + 6 pictures, of which one has no header, and two lack their end."""
    for split, count in (("train", 20), ("test", 6)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                Image.effect_noise((12, 12), 20 + i).save(tmp_path / split / name / f"{i:02}.png")
    (tmp_path / "train" / "ant" / "03.png").write_bytes(b"")
    cut(tmp_path / "train" / "bee" / "05.png")
    cut(tmp_path / "test" / "bee" / "01.png")
    return tmp_path


def test_a_run_counts_what_it_used(noisy, run_tiny, capfd):
    data = ["data=imagefolder", f"data.root={noisy}", "data.size=8", "data.corrupt=skip", "data.memory_gib=0"]
    run = run_tiny(*data, "trainer.batch_size=13", "trainer.max_steps=3", "trainer.workers=0")
    results = json.loads((run / "results.json").read_text())
    assert results["train_size"] == 39
    assert (results["train_images"], results["test_images"]) == (38, 11)
    assert results["broken_pictures"] == 3
    listed = (run / "broken_pictures.txt").read_text().splitlines()
    assert sorted(listed) == [str(noisy / f) for f in ("test/bee/01.png", "train/ant/03.png", "train/bee/05.png")]
    said = capfd.readouterr().err
    assert [said.count(f"{name}: ") for name in listed] == [1, 1, 1]


def read_an_epoch(ranks, folder):
    splits = load_splits(ImageFolder(root=str(folder), size=8, corrupt="skip", memory_gib=0), ranks)
    name = f"{ranks.count}-{ranks.rank}"
    splits.broken.persist(folder / f"broken-{ranks.count}.txt")
    order = Order(len(splits.pretraining), 6, seed=0, ranks=ranks)
    pixels = [pixels for pixels, _ in BatchStream(splits.pretraining, order, batches=6)]
    torch.save((pixels, splits.train.labels), folder / f"{name}.pt")
    return folder


def test_two_processes_drop_replace_and_name_the_same(noisy, capfd, monkeypatch):
    monkeypatch.setattr(processes, "multiprocessing", multiprocessing)  # forked ones would print where others do
    read_an_epoch(ALONE, noisy)
    launch_processes(2, "gloo", 60.0, partial(read_an_epoch, folder=noisy))
    (whole, labels), *halves = (torch.load(noisy / f"{name}.pt") for name in ("1-0", "2-0", "2-1"))
    assert len(labels) == 39
    for pixels, labels_of_half in halves:
        assert len(pixels) == len(whole)
        assert torch.equal(labels_of_half, labels)
    for batch, first, second in zip(whole, halves[0][0], halves[1][0], strict=True):
        assert torch.equal(batch, torch.cat([first, second]))
    alone, together = (sorted((noisy / f"broken-{count}.txt").read_text().split()) for count in (1, 2))
    assert alone == together == [str(noisy / name) for name in ("train/ant/03.png", "train/bee/05.png")]
    said = capfd.readouterr().err
    assert [said.count(f"{name}: ") for name in alone] == [2, 2]  # once alone, once by the two


def test_processes_that_see_other_pictures_stop(folder):
    class Other(Ranks):
        def broadcast(self, value):
            return [value[0] + 1, *value[1:]]

    with pytest.raises(TrainerError, match=r"Process 1 has \[6, 6, 4\] pictures .* process 0 has \[7, 6, 4\]"):
        load_splits(ImageFolder(root=str(folder)), Other(1, 2))


def test_a_data_set_of_one_flat_color_stops_with_its_name(folder, run_tiny):
    for path in folder.rglob("*.png"):
        Image.new("RGB", (8, 8), "white").save(path)
    with pytest.raises(TrainerError, match=r"^data=imagefolder in data\.root=.*: all 6 pictures .*\(255, 255, 255\)"):
        run_tiny("data=imagefolder", f"data.root={folder}", "data.size=8", "trainer.batch_size=4")
    assert not list((folder / "runs").glob("*/*"))


def test_a_channel_may_be_flat_where_others_are_not(folder):
    sample = load(folder).train.sample()
    assert sample[:, 1].unique().tolist() == [0]
    require_variance(sample, "imagefolder", None)
    with pytest.raises(TrainerError, match=r"^data=digits: all 5 pictures"):
        require_variance(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), "digits", None)
    with pytest.raises(TrainerError, match="no picture of the sample"):
        require_variance(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "digits", None)
