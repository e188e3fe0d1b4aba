"""Both pipelines on a folder of pictures: the same views for any workers, processes and start; and what is in memory."""

import numpy as np
import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.data.broken import BrokenPictures
from ortho_kernels.trainer.data.encoded import EncodedImages
from ortho_kernels.trainer.data.imagefolder import ImageFolder
from ortho_kernels.trainer.data.order import Order
from ortho_kernels.trainer.data.picture_sources import PictureFiles
from ortho_kernels.trainer.data.pipelines import DevicePipeline, WorkersPipeline, build_pipeline
from ortho_kernels.trainer.data.stream import BatchStream
from ortho_kernels.trainer.data.view_settings import LocalSettings, ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.data.whole_pictures import Padded, WholePictures, collate, pack
from ortho_kernels.trainer.distributed.processes import ALONE, Ranks
from ortho_kernels.trainer.speed import describe, held_stream

STILL = ViewSettings(jitter=0.0, gray=0.0, blur=0.0, local=LocalSettings(count=1, size=4))


def smooth(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def files(tmp_path):
    """Pictures of several sizes; number 5 is broken."""
    for i in range(12):
        smooth(40 + 7 * (i % 3), 60 - 5 * (i % 4), i).save(tmp_path / f"{i:02}.{'jpg' if i % 2 else 'png'}")
    (tmp_path / "05.jpg").write_bytes(b"")
    names = [bytes(path.name, "utf8") for path in sorted(tmp_path.iterdir())]
    return EncodedImages(PictureFiles.of(bytes(tmp_path) + b"/", names), torch.arange(12), 24, BrokenPictures())


def views_of(images, choice, ranks=ALONE, workers=0, position=0):
    plan = plan_views("multicrop", STILL, 8)
    stream = BatchStream(images, Order(12, 4, 0, ranks), 6, workers, build_pipeline(choice, plan, images, 0))
    stream.load_state_dict({"position": position, "images": 12})
    views = Views(plan, 8, images.sample(), 0, ranks)
    return [views(pictures, number) for pictures, number in stream]


def assert_close(ours, theirs):
    for mine, its in zip(ours, theirs, strict=True):
        for view, expected in zip(mine, its, strict=True):
            torch.testing.assert_close(view, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("choice", ["device", "workers"])
def test_views_are_the_same_for_any_workers_processes_and_start(files, choice):
    whole = views_of(files, choice)
    assert [view.shape for view in whole[0]] == [(4, 3, 8, 8), (4, 3, 8, 8), (4, 3, 4, 4)]
    assert_close(views_of(files, choice, position=4), whole[4:])
    assert_close(views_of(files, choice, workers=2), whole)
    halves = [views_of(files, choice, Ranks(rank, 2)) for rank in (0, 1)]
    assert_close([[torch.cat(parts) for parts in zip(*both, strict=True)] for both in zip(*halves, strict=True)], whole)


def test_the_pipelines_show_the_same_parts(files):
    """By the same draws: what differs is the scale of a picture, and so where whole pixels lie."""
    for view in range(3):
        both = [torch.cat([views[view] for views in views_of(files, choice)]) for choice in ("device", "workers")]
        assert torch.corrcoef(torch.stack([each.flatten() for each in both]))[0, 1] > 0.9


def test_pictures_in_memory_give_the_views_of_the_device_pipeline(files):
    sound = files.select(torch.tensor([i for i in range(12) if i != 5] + [0]))
    held = sound.decode_whole()
    assert held.in_memory
    assert isinstance(build_pipeline(None, plan_views("two", STILL, 8), held, 0), DevicePipeline)
    assert isinstance(build_pipeline(None, plan_views("two", STILL, 8), files, 0), WorkersPipeline)
    assert_close(views_of(held, None), views_of(sound, "device"))
    some = torch.tensor([3, 0, 7])
    assert torch.equal(held.batch(some), sound.batch(some))  # middle squares, for evaluation
    assert torch.equal(held.select(some).batch(torch.tensor([2])), held.batch(some[2:]))


def test_pictures_are_packed_in_blocks_and_found_again(monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.data.whole_pictures.BLOCK_BYTES", 100)
    pictures = [torch.full((3, 2 + i % 3, 4), i, dtype=torch.uint8) for i in range(20)]
    blocks, places = pack(iter(pictures))
    assert len(blocks) > 3
    found, _ = WholePictures(blocks, places, torch.arange(20)).whole(torch.arange(20))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, pictures, strict=True))
    padded = collate(pictures[:3])
    assert isinstance(padded, Padded)
    assert padded.pixels.shape == (3, 3, 4, 4)
    assert padded.sizes.tolist() == [[2, 4], [3, 4], [4, 4]]


def test_memory_holds_whole_pictures_unless_workers_are_to_cut_them(folder):
    def load(**options):
        return ImageFolder(root=str(folder), size=8, **options).load().train

    whole, _ = load().whole(torch.tensor([0]))
    assert whole[0].shape == (3, 8, 10)  # of 9 x 12
    assert not load(pipeline="workers").in_memory
    assert load(pipeline="device", memory_gib=0).in_memory is False
    assert not load(views=ViewSettings(transform="own_views:noisy")).in_memory
    squares = 10 * 3 * 8 * 8 / 2**30
    assert not load(memory_gib=1.01 * squares).in_memory  # they are wider than squares
    assert load(memory_gib=1.4 * squares).in_memory


@pytest.mark.parametrize("choice", ["device", "workers"])
def test_a_run_on_files_trains_with_either(folder, run_tiny, choice):
    words = ["data=imagefolder", f"data.root={folder}", "data.size=8", f"data.pipeline={choice}", "data.memory_gib=0"]
    run = run_tiny(*words, "trainer.batch_size=4", "trainer.workers=0", "evaluation.neighbors=2")
    assert (run / "results.json").exists()


def test_a_long_picture_loses_its_ends_in_memory_alone(tmp_path):
    smooth(10, 200).save(tmp_path / "a.png")
    images = EncodedImages(PictureFiles.of(bytes(tmp_path) + b"/", [b"a.png"]), torch.zeros(1), 8)
    assert images.decode_whole().whole(torch.tensor([0]))[0][0].shape == (3, 8, 32)


FOUND = {
    "data": "imagefolder", "views": [8, 8], "batch_size": 4, "workers": 1, "pipeline": "WorkersPipeline", "device": "cpu",
    "prepared": 100.0, "finished": 400.0, "both": 90.0, "model": 30.0,
}  # fmt: skip


def test_the_speed_of_parts_says_what_to_change(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert "The model is the bottleneck: pictures come 3.0 times as fast" in describe(FOUND)
    slow = FOUND | {"model": 900.0}
    assert "the model takes pictures 10.0 times as fast as they come" in describe(slow)
    assert "raise trainer.workers=1 up to the 8 cores" in describe(slow)
    assert "shrink the files" in describe(slow | {"workers": 7, "finished": 5000.0})
    assert "Most time goes into views on cpu" in describe(slow | {"finished": 50.0})


def test_a_held_stream_gives_the_same_again(files):
    stream = BatchStream(files, Order(12, 4, 0), 6)
    pictures = stream.pipeline.prepare(files, torch.tensor([0, 1]), 0, stream.order)
    assert [given is pictures for given, _ in held_stream(stream, pictures, 3)] == [True] * 3
