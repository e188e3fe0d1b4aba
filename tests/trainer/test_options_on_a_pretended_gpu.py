"""With any option a run trains on a pretended GPU as on the CPU, and between rows of figures no step waits for it."""

import pytest
from pretended_gpu import only_without_a_gpu
from two_devices import assert_resume_is_exact, train_on_both, train_on_cpu, train_on_gpu

from ortho_kernels.trainer.report.metrics_file import read_metrics

pytestmark = only_without_a_gpu


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=lars"],
        ["optimizer=adamw", "trainer.ema=0.9"],
        ["penalty=srip", "penalty.warm_start=true", "trainer.clip=1.0"],
        ["penalty=decay", "trainer.accumulate=2"],
        ["penalty=none", "penalty.gamma=0", "evaluation.every=1000"],
        ["backbone=vit_tiny", "penalty=srip", "penalty.split_qkv=true", "trainer.stop_on_collapse=true"],
    ],
    ids=" ".join,
)
def test_a_run_is_that_of_the_cpu_and_waits_for_nothing(tmp_path, words):
    assert train_on_both(tmp_path, *words) == []


@pytest.mark.parametrize("pipeline", ["device", "workers"])
def test_so_are_views_of_pictures_of_several_sizes(pictures_of_sizes, tmp_path, pipeline):
    words = [f"data.root={pictures_of_sizes}", "data=imagefolder", "data.size=16", f"data.pipeline={pipeline}"]
    words += ["trainer.workers=0", "data.views.blur=1.0", "data.views.solarize=0.5"]
    assert train_on_both(tmp_path, *words) == []


@pytest.mark.slow
def test_so_are_batches_that_worker_processes_pin(pictures_of_sizes, tmp_path):
    words = [f"data.root={pictures_of_sizes}", "data=imagefolder", "data.size=16", "data.memory_gib=0"]
    assert train_on_both(tmp_path, *words, "trainer.workers=1") == []


def test_bfloat16_is_near_float32_and_waits_for_nothing(tmp_path):
    """In its first loss, before rounding grows."""
    run, waits = train_on_gpu(tmp_path, "trainer.precision=bf16-mixed")
    first, expected = (read_metrics(each / "metrics.csv")[0] for each in (run, train_on_cpu(tmp_path)))
    assert first["loss"] == pytest.approx(expected["loss"], rel=0.02)
    assert first["loss"] != expected["loss"]
    assert waits == []


def test_a_loss_scaler_skips_the_first_steps_and_reads_one_value_a_step(tmp_path):
    run, waits = train_on_gpu(tmp_path, "trainer.precision=16-mixed")
    raw = [row["penalty_raw"] for row in read_metrics(run / "metrics.csv")]
    assert raw[0] == raw[1] != raw[2]  # before steps 1, 4 and 5
    assert len(waits) == 2
    assert all("_local_scalar_dense at amp.py" in line for line in waits)


def test_running_scores_are_those_of_the_cpu(tmp_path):
    train_on_both(tmp_path, "evaluation.every=0.03", "evaluation.sample=40")


def test_a_resume_is_exact(tmp_path):
    assert_resume_is_exact(tmp_path)
