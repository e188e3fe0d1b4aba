"""The same work on a GPU, pretended or not, and on the CPU."""

import json
from contextlib import nullcontext

import pytest
from bare_runs import train
from between_rows import config_of, train_watched
from pretended_gpu import PretendedGpu
from tiny import tiny_words
from voc_pictures import SHAPES, write_voc

from ortho_kernels.trainer import detect
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.report.metrics_file import read_metrics
from ortho_kernels.trainer.runs.pretrain import pretrain

ROUNDING = 1e-4
# What is timed, and what says on which device it was.
TIMED = {"seconds", "images_per_second", "step_ms", "penalty_ms", "penalty_share"}
DIFFERING = {*TIMED, "machine", "device", "settings"}


def train_on_both(folder, *words):
    """Trains on a pretended GPU and on the CPU, asserts that their figures are the same to rounding, and returns the waits
    of the GPU's steps."""
    run, waits = train_on_gpu(folder, *words)
    assert_rows_alike(run, train_on_cpu(folder, *words))
    return waits


def train_on_gpu(folder, *words, gpu=PretendedGpu):
    """The run's folder, and the waits of its steps 2 and 3."""
    with gpu():
        return train_watched(ALONE, config_of(folder / "gpu", ["trainer=gpu", *words]))


def train_on_cpu(folder, *words):
    return train(ALONE, config_of(folder / "cpu", ["trainer=cpu", *words]))


def written_on_both(command, gpu=PretendedGpu):
    """What a command writes, given the device: the JSON of the file that it returns, on the GPU and on the CPU."""
    found = []
    for device in ("gpu", "cpu"):
        with gpu() if device == "gpu" else nullcontext():
            file = command(device)
        found.append(json.loads(file.read_text()))
        file.unlink()
    return found


def finished_run(folder):
    """A run of the CPU, with its results."""
    words = ["trainer=cpu", f"runs={folder}", "trainer.tensorboard=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
        return pretrain(load_config([*tiny_words(*words), *words]))


def command_of(main, run, *words):
    """A command on a run, as a function of the device that returns the newest file of the run's scores."""

    def command(device):
        main([str(run), f"device={device}", *words])
        return max((run / "evaluations").glob("*.json"), key=lambda file: file.stat().st_mtime)

    return command


def detection_of(run, folder, *words):
    """Likewise the training of a small detector, on pictures that are written to the folder."""
    sets = {("2007", "trainval"): 2, ("2012", "trainval"): 2, ("2007", "test"): 2}
    pictures = write_voc(folder / "voc", sets, size=(48, 40), difficult=0)
    small = [
        "steps=2",
        "warmup=1",
        "batch_size=2",
        "short_side=32",
        "norm_batches=1",
        "fpn_channels=8",
        "head_width=16",
    ]
    small += [f"root={pictures}", f"classes={','.join(SHAPES)}", "threads=1", f"output={folder / 'page.html'}"]
    return command_of(detect.main, run, *small, *words)


def run_of(run_tiny, *words):
    """A whole run, as a function of the device that returns its results."""
    return lambda device: run_tiny("trainer.tensorboard=false", f"trainer={device}", *words) / "results.json"


def assert_resume_is_exact(folder, gpu=PretendedGpu):
    """That a run on the GPU which goes on from its first checkpoint has the rows of one that was never cut."""
    words = ["trainer=gpu", "penalty=srip", "penalty.warm_start=true", "trainer.ema=0.9", "trainer.checkpoint_every=2"]
    with gpu():
        whole, cut = (train(ALONE, config_of(folder / name, words)) for name in ("whole", "cut"))
        assert_rows_alike(cut, whole, rounding=0)
        for late in sorted((cut / "checkpoints").glob("*.ckpt"))[1:]:
            late.unlink()
        resumed = train(ALONE, config_of(folder / "cut", [*words, f"resume={cut}"]))
    assert resumed == cut
    assert_rows_alike(resumed, whole, rounding=0)


def assert_rows_alike(run, other, rounding=ROUNDING):
    """That the figures of two runs' steps are the same to rounding, but those that are timed."""
    for name in ("metrics.csv", "evaluations.csv"):
        assert (run / name).is_file() == (other / name).is_file()
        if (run / name).is_file():
            assert_alike(read_metrics(run / name), read_metrics(other / name), rounding)


def assert_alike(found, expected, rounding=ROUNDING, place=""):
    """That all numbers in nested lists and dictionaries are the same to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected.keys() - DIFFERING:
            assert_alike(found[key], expected[key], rounding, f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, rounding, f"{place}/{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=rounding, abs=rounding, nan_ok=True), place
    else:
        assert found == expected, place
