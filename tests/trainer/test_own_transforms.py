"""data.views.transform=MODULE:NAME: what the views are then, that they repeat, and what is said of what can't be used."""

import json
import random

import numpy as np
import own_views
import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.data import MemoryImages
from ortho_kernels.trainer.data.encoded import EncodedImages
from ortho_kernels.trainer.data.images import Images
from ortho_kernels.trainer.data.order import Order
from ortho_kernels.trainer.data.picture_sources import PictureFiles
from ortho_kernels.trainer.data.pipelines import OwnPipeline, build_pipeline
from ortho_kernels.trainer.data.stream import BatchStream
from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.distributed.processes import ALONE, Ranks
from ortho_kernels.trainer.errors import TrainerError


@pytest.fixture(autouse=True)
def _on_the_path(monkeypatch):
    """In the processes that a test starts too."""
    monkeypatch.syspath_prepend(str(own_views.__file__).rpartition("/")[0])


def plan(name, kind="two"):
    return plan_views(kind, ViewSettings(transform=f"own_views:{name}"), 8)


def images(channels=3, count=12):
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 9, 9)
    return MemoryImages(pixels.contiguous(), torch.zeros(count))


def batches(held, name="noisy", ranks=ALONE, workers=0, position=0, seed=0):
    pipeline = build_pipeline(None, plan(name), held, seed)
    assert isinstance(pipeline, OwnPipeline)
    stream = BatchStream(held, Order(len(held), 4, seed, ranks), 6, workers, pipeline)
    stream.load_state_dict({"position": position, "images": len(held)})
    return [views for views, _ in stream]


def assert_equal(ours, theirs):
    for mine, its in zip(ours, theirs, strict=True):
        for view, expected in zip(mine, its, strict=True):
            assert torch.equal(view, expected)


def test_views_are_what_the_transform_returns_and_nothing_is_added():
    held = images()
    [views, *_] = batches(held, "PAIR")
    assert [view.shape for view in views] == [(4, 3, 8, 8)] * 2
    order = Order(12, 4, 0).epoch(0)[:4].tolist()
    assert views[0][:, 0, 0, 0].tolist() == order
    torch.testing.assert_close(views[1][:, 0, 0, 0] * 255, torch.tensor(order).float())
    ready = Views(plan("PAIR"), 8, held.sample(), seed=0)(views, 0)
    assert all(torch.equal(mine, its) for mine, its in zip(ready, views, strict=True))


def test_draws_depend_on_the_seed_the_batch_the_place_and_the_view_alone():
    held = images()
    whole = batches(held)
    assert_equal(batches(held), whole)
    assert_equal(batches(held, position=3), whole[3:])
    assert_equal(batches(held, workers=2), whole)
    halves = [batches(held, ranks=Ranks(rank, 2)) for rank in (0, 1)]
    together = [
        [torch.cat(parts) for parts in zip(first, second, strict=True)] for first, second in zip(*halves, strict=True)
    ]
    assert_equal(together, whole)
    drawn = torch.stack([view[:, 0, 0, 1:4] for views in whole for view in views])
    assert len(drawn.flatten().unique()) == drawn.numel()  # of each generator, view, place and batch
    assert not torch.equal(batches(held, seed=1)[0][0], whole[0][0])


def test_generators_outside_stay_as_they_were():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    batches(images())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


@pytest.mark.parametrize("name", ["Resize", "factory", "noisy"])
def test_a_class_a_factory_and_a_function_serve(name):
    assert batches(images(), name)[0][0].shape == (4, 3, 8, 8)


def test_gray_pictures_are_gray():
    assert batches(images(channels=1))[0][0].shape == (4, 1, 8, 8)


def test_multicrop_asks_for_a_size_each():
    with pytest.raises(TrainerError, match=r"lists 2 transforms for 8 views"):
        build_pipeline(None, plan("PAIR", "multicrop"), images(), 0)
    with pytest.raises(
        TrainerError, match=r"for view 3, which is \(3, 3, 3\): .*name a list with a transform for each"
    ):
        build_pipeline(None, plan("factory", "multicrop"), images(), 0)


def test_the_device_cannot_run_them():
    with pytest.raises(TrainerError, match=r"^data\.pipeline=device: data\.views\.transform=own_views:factory"):
        build_pipeline("device", plan("factory"), images(), 0)


def test_files_reach_the_transform_whole_and_another_stands_in_for_a_broken_one(tmp_path):
    from ortho_kernels.trainer.data.broken import BrokenPictures

    for i in range(6):
        Image.new("RGB", (40, 20 + i), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "3.png").write_bytes(b"")
    sources = PictureFiles.of(bytes(tmp_path) + b"/", [f"{i}.png".encode() for i in range(6)])
    held = EncodedImages(sources, torch.zeros(6), 8, BrokenPictures())
    seen = [int(value) for views in batches(held) for value in views[0][:, 0, 0, 0]]
    assert 3 not in seen
    assert len(seen) == 24


class Squares(Images):
    """A set of the user's own that can only be read."""

    in_memory = False

    def __init__(self):
        self.labels = torch.zeros(8)

    def read(self, indices):
        return images().read(indices)

    def select(self, indices):
        return self


def test_any_set_of_pictures_serves():
    assert batches(Squares())[0][0].shape == (4, 3, 8, 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "has no nothing"),
        ("NUMBER", "holds a int. Give a function"),
        ("WITH_NUMBER", "holds a int"),
        ("THREE", "lists 3 transforms for 2 views"),
        ("no_tensor", "returns a Image and no tensor"),
        ("in_bytes", "returns torch.uint8, and views are floats"),
        ("too_large", r"returns \(3, 9, 8\) for view 1, which is \(3, 8, 8\): channels, height, width"),
        ("fails", r"raises ValueError: no such corner \(.*own_views.py:\d+\)"),
        ("NeedsSize", r"NeedsSize\(\) raises TypeError"),
    ],
)
def test_what_cannot_be_used_is_said_before_training(name, said):
    with pytest.raises(TrainerError, match=rf"^data\.views\.transform=own_views:{name}: .*{said}"):
        build_pipeline(None, plan(name), images(), 0)


@pytest.mark.parametrize(
    ("path", "said"), [("own_view", "is not an import path"), ("missing.module:x", "no module missing")]
)
def test_a_path_that_does_not_import_is_said(path, said):
    settings = ViewSettings(transform=path)
    with pytest.raises(TrainerError, match=rf"^data\.views\.transform={path}: .*{said}"):
        build_pipeline(None, plan_views("two", settings, 8), images(), 0)


def test_a_run_trains_on_them(run_tiny):
    run = run_tiny("data.views.transform=own_views:factory", "trainer.workers=1")
    assert json.loads((run / "results.json").read_text())["steps"] == 2
