"""What is measured of a trained encoder on a pretended GPU is what the CPU measures."""

import json
from contextlib import nullcontext

import pytest
from pretended_gpu import PretendedGpu, only_without_a_gpu
from tiny import tiny_words
from voc_pictures import SHAPES, write_voc

from ortho_kernels.trainer import detect, evaluate, spectra
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.runs.pretrain import pretrain

pytestmark = only_without_a_gpu

SMALL = ["steps=2", "warmup=1", "batch_size=2", "short_side=32", "regions=16", "anchors=16", "norm_batches=1"]
SMALL += ["fpn_channels=8", "head_width=16", "threads=1", "checkpoint_every=1"]
# What is timed, and what says on which device it was.
DIFFERING = ("seconds", "machine", "device", "settings", "images_per_second", "step_ms", "penalty_ms", "penalty_share")


def assert_alike(found, expected, place=""):
    """That all numbers in nested lists and dictionaries are the same to rounding."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected.keys() - {*DIFFERING}:
            assert_alike(found[key], expected[key], f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_alike(one, other, f"{place}/{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4, nan_ok=True), place
    else:
        assert found == expected, place


def on_both(command):
    """What a command writes, given the device: the JSON of its newest file, on the pretended GPU and on the CPU."""
    found = []
    for device in ("gpu", "cpu"):
        with PretendedGpu() if device == "gpu" else nullcontext():
            file = command(device)
        found.append(json.loads(file.read_text()))
        file.unlink()
    return found


@pytest.mark.parametrize(
    "words",
    [
        ["method=byol", "trainer.ema=0.5", "evaluation.network=ema", "penalty.gamma=1e-3"],
        ["method=mae", "backbone=vit_tiny"],
    ],
    ids=" ".join,
)
def test_a_whole_run_ends_as_on_the_cpu(run_tiny, words):
    def results(device):
        run = run_tiny("trainer.tensorboard=false", f"trainer={device}", *words)
        return run / "results.json"

    assert_alike(*on_both(results))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    words = ["trainer.accelerator=cpu", f"runs={tmp_path_factory.mktemp('runs')}", "trainer.tensorboard=false"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
        return pretrain(load_config([*tiny_words(*words), *words]))


def command_of(main, run, *words):
    def command(device):
        main([str(run), f"device={device}", *words])
        return max((run / "evaluations").glob("*.json"), key=lambda file: file.stat().st_mtime)

    return command


@pytest.mark.parametrize(
    "words",
    [
        ["protocol=knn"],
        ["protocol=logistic"],
        ["protocol=linear", "linear.epochs=2"],
        ["protocol=finetune", "finetune.epochs=1"],
    ],
    ids=lambda words: words[0],
)
def test_scores(run, words):
    assert_alike(*on_both(command_of(evaluate.main, run, "train_images=60", "test_images=40", *words)))


def test_spectra(run):
    words = ["fold_batch_norm=true", "operators=true", "layers=layer1*,layer2*", "images=40"]
    assert_alike(*on_both(command_of(spectra.main, run, *words)))


@pytest.mark.parametrize("detector", ["c4", "fpn"])
def test_detection(run, tmp_path, detector):
    """Its losses: which regions are found changes with rounding."""
    sets = {("2007", "trainval"): 2, ("2012", "trainval"): 2, ("2007", "test"): 2}
    pictures = write_voc(tmp_path / "voc", sets, size=(48, 40), difficult=0)
    words = [f"root={pictures}", f"classes={','.join(SHAPES)}", f"detector={detector}", *SMALL]
    found, expected = on_both(command_of(detect.main, run, *words, f"output={tmp_path / 'page.html'}"))
    assert_alike(found["losses"], expected["losses"])
