"""The trainer on a GPU, in short: what it computes there is what the CPU computes.

Whole runs are compared in float64, where rounding stays small. Convolutions in float32 do not round to TF32 here.
"""

from contextlib import nullcontext

import pytest
import torch
from small_methods import backbone_of, small_heads
from two_devices import (
    assert_alike,
    assert_resume_is_exact,
    assert_rows_alike,
    command_of,
    detection_of,
    finished_run,
    run_of,
    train_on_cpu,
    train_on_gpu,
    written_on_both,
)

from ortho_kernels.trainer import evaluate, spectra
from ortho_kernels.trainer.data.images import MemoryImages
from ortho_kernels.trainer.data.order import Order
from ortho_kernels.trainer.data.pipelines import WorkersPipeline
from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.report.metrics_file import read_metrics

pytestmark = pytest.mark.gpu

GPU = nullcontext  # the one that is there
IN_FLOAT64 = "trainer.precision=64-true"


@pytest.fixture(autouse=True)
def _repeatable_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("method", METHODS)
def test_the_first_loss_of_a_method(tmp_path, method):
    words = [f"method={method}", backbone_of(method), *small_heads(method), "trainer.max_steps=2", "penalty=srip"]
    run, _ = train_on_gpu(tmp_path, *words, gpu=GPU)
    found, expected = (read_metrics(each / "metrics.csv") for each in (run, train_on_cpu(tmp_path, *words)))
    assert_alike(found[0], expected[0], rounding=2e-3)
    assert found[1]["loss"] == pytest.approx(expected[1]["loss"], rel=0.1)


@pytest.mark.parametrize(
    "words",
    [
        ["method=byol", "trainer.ema=0.5", "evaluation.network=ema", "evaluation.every=0.03", "trainer.clip=1.0"],
        ["method=mae", "backbone=vit_tiny", "trainer.accumulate=2", "trainer.stop_on_collapse=true"],
    ],
    ids=" ".join,
)
def test_a_whole_run_ends_as_on_the_cpu(run_tiny, words):
    assert_alike(*written_on_both(run_of(run_tiny, IN_FLOAT64, *words), gpu=GPU))


@pytest.mark.parametrize("pipeline", ["device", "workers"])
def test_a_run_on_pictures_of_several_sizes(pictures_of_sizes, tmp_path, pipeline):
    words = [f"data.root={pictures_of_sizes}", "data=imagefolder", "data.size=16", f"data.pipeline={pipeline}"]
    words += ["data.memory_gib=0", "trainer.workers=1", "data.views.blur=1.0", "data.views.solarize=0.5", IN_FLOAT64]
    run, _ = train_on_gpu(tmp_path, *words, gpu=GPU)
    assert_rows_alike(run, train_on_cpu(tmp_path, *words), rounding=1e-3)


@pytest.mark.parametrize("kind", ["two", "asymmetric", "multicrop"])
def test_views_that_the_device_cuts_are_those_of_workers(kind):
    """To a gray level in the mean, where nothing is colored: workers round crops to bytes."""
    pixels = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8)
    settings = ViewSettings(jitter=0.0, gray=0.0, blur=0.0, solarize=0.0)
    plan = plan_views(kind, settings, 20)
    views = Views(plan, 20, pixels, seed=0)
    images, order = MemoryImages(pixels, torch.zeros(6)), Order(6, 6, 0)
    crops = WorkersPipeline(plan, 3, seed=0).prepare(images, torch.arange(6), 0, order)
    of_workers, of_host = views(crops, 0), views(pixels, 0)
    of_device = views.to("cuda")(pixels.to("cuda"), 0)
    level = 1 / 255 / views.std.min().item()
    for worker, host, device in zip(of_workers, of_host, of_device, strict=True):
        torch.testing.assert_close(device.cpu(), host, rtol=1e-4, atol=1e-4)
        assert (device.cpu() - worker).abs().mean() < level


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("method", ["simclr", "dino", "mae"])
def test_16_bits_train(tmp_path, method, precision):
    words = [f"method={method}", backbone_of(method), *small_heads(method), f"trainer.precision={precision}"]
    run, _ = train_on_gpu(tmp_path, *words, gpu=GPU)
    cpu = train_on_cpu(tmp_path, *words[:-1], "trainer.max_steps=1")
    first, expected = (read_metrics(each / "metrics.csv")[0] for each in (run, cpu))
    assert first["loss"] == pytest.approx(expected["loss"], rel=0.05)


@pytest.mark.parametrize("protocol", ["knn", "logistic", "linear", "finetune"])
def test_scores(run, protocol):
    """The same encoder, to a picture or two of forty."""
    short = {"linear": ["linear.epochs=2"], "finetune": ["finetune.epochs=1"]}.get(protocol, [])
    words = [f"protocol={protocol}", "train_images=60", "test_images=40", *short]
    found, expected = written_on_both(command_of(evaluate.main, run, *words), gpu=GPU)
    assert found["accuracy"] == pytest.approx(expected["accuracy"], abs=0.06)


def test_spectra(run):
    words = ["layers=layer1*,layer2*", "images=40"]
    assert_alike(*written_on_both(command_of(spectra.main, run, *words), gpu=GPU), rounding=1e-3)


@pytest.mark.parametrize("detector", ["c4", "fpn"])
def test_losses_of_a_detector(run, tmp_path, detector):
    """Of the first step, which learns from all anchors and regions: else each device draws its own."""
    for package in ("torchmetrics", "faster_coco_eval"):
        pytest.importorskip(package)
    words = [f"detector={detector}", "regions=100000", "anchors=100000"]
    found, expected = written_on_both(detection_of(run, tmp_path, *words), gpu=GPU)
    first, expected_first = ([losses[0] for losses in each["losses"].values()] for each in (found, expected))
    assert_alike(first, expected_first, rounding=0.02)


def test_a_resume_is_exact(tmp_path):
    assert_resume_is_exact(tmp_path, gpu=GPU)
