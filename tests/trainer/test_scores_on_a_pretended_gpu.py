"""What is measured of a trained encoder on a pretended GPU is what the CPU measures."""

import pytest
from pretended_gpu import only_without_a_gpu
from two_devices import assert_alike, command_of, detection_of, finished_run, run_of, written_on_both

from ortho_kernels.trainer import evaluate, spectra

pytestmark = only_without_a_gpu


@pytest.mark.parametrize(
    "words",
    [
        ["method=byol", "trainer.ema=0.5", "evaluation.network=ema", "penalty.gamma=1e-3"],
        ["method=mae", "backbone=vit_tiny"],
    ],
    ids=" ".join,
)
def test_a_whole_run_ends_as_on_the_cpu(run_tiny, words):
    assert_alike(*written_on_both(run_of(run_tiny, *words)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("runs"))


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
    assert_alike(*written_on_both(command_of(evaluate.main, run, "train_images=60", "test_images=40", *words)))


def test_spectra(run):
    words = ["fold_batch_norm=true", "operators=true", "layers=layer1*,layer2*", "images=40"]
    assert_alike(*written_on_both(command_of(spectra.main, run, *words)))


@pytest.mark.parametrize("detector", ["c4", "fpn"])
def test_losses_of_a_detector(run, tmp_path, detector):
    """Not its scores: which regions it finds may change with rounding."""
    found, expected = written_on_both(detection_of(run, tmp_path, f"detector={detector}", "regions=16", "anchors=16"))
    assert_alike(found["losses"], expected["losses"])
