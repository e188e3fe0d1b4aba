"""Shared by the trainer's tests: configurations that run in a second, and a folder of pictures."""

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from browser import Browser
from forking import forking_context
from PIL import Image
from tiny import tiny_words


@pytest.fixture(scope="module")
def browser():
    found = Browser()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny tensors gain nothing from a second thread, and several test processes may share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _forked_processes():
    from ortho_kernels.trainer.distributed import processes

    forking = SimpleNamespace(
        get_context=lambda method: forking_context(), parent_process=multiprocessing.parent_process
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "multiprocessing", forking)
        yield


@pytest.fixture
def tiny(tmp_path):
    """`tiny("method=simclr", ...)`: a small configuration whose runs go to a folder of this test."""
    from ortho_kernels.trainer.config import load_config  # not where its needs are missing, and this file is read too

    return lambda *words: load_config([*tiny_words(*words), f"runs={tmp_path / 'runs'}", *words])


@pytest.fixture
def run_tiny(tiny, monkeypatch):
    """Pretrains a small configuration, without the report, which takes longer than that; returns the run's folder."""
    from ortho_kernels.trainer.runs.pretrain import pretrain

    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
    return lambda *words, callbacks=(): pretrain(tiny(*words), callbacks)


@pytest.fixture
def folder(tmp_path):
    """An image folder: 3 + 3 training and 2 + 2 test pictures, each of one color."""
    for split, count in (("train", 3), ("test", 2)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                shade = 40 * i + 10 * (name == "bee")
                Image.new("RGB", (12, 9), (shade, 0, 255)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


@pytest.fixture(scope="session")
def pictures_of_sizes(tmp_path_factory):
    """An image folder: 2 x 20 training and 2 x 6 test pictures of noise, of several sizes, a class darker than another."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 6)):
        for number, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for place in range(count):
                height, width = random.integers(20, 40, 2)
                pixels = random.integers(100 * number, 100 * number + 120, (height, width, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{place}.jpg", quality=95)
    return root
