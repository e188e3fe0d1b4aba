"""Whole runs, two steps long: every method, backbone and penalty; and what the penalty does to a step."""

import json
import re
import sys

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins import MixedPrecision
from small_methods import backbone_of
from torch import nn

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.trainer.backbones.resnet import ResNet18
from ortho_kernels.trainer.engine import strategies
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.engine.finite_steps import first_non_finite_layer
from ortho_kernels.trainer.engine.monitor import spread
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.report.metrics_file import read_metrics


class Watch(Callback):
    """Keeps the pixels and losses that pass by."""

    def __init__(self):
        self.pixels, self.losses = [], []

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.pixels.append(batch[0])
        self.losses.append(outputs["loss"].item())


@pytest.mark.parametrize(
    ("method", "backbone", "penalty"),
    [
        *((method, backbone_of(method), "so") for method in METHODS),
        *(("byol", "backbone=vit_tiny", penalty) for penalty in ("none", "so", "srip", "decay")),
    ],
)
def test_every_method_backbone_and_penalty_runs(run_tiny, method, backbone, penalty):
    folder = run_tiny(f"method={method}", backbone, f"penalty={penalty}")
    results = json.loads((folder / "results.json").read_text())
    assert 0 <= results["knn"] <= 1
    assert 0 <= results["linear_probe"] <= 1
    rows = read_metrics(folder / "metrics.csv")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["penalty_raw"] > 0 for row in rows)
    assert all((row["penalty"] > 0) == (penalty != "none") for row in rows)
    assert list((folder / "tensorboard").iterdir())


def test_a_baseline_and_a_regularized_run_differ_in_gamma_alone(run_tiny):
    seen = {}
    for gamma in ("0", "10"):
        watch = Watch()
        run_tiny("penalty=srip", f"penalty.gamma={gamma}", callbacks=[watch])
        seen[gamma] = watch
    for ours, theirs in zip(seen["0"].pixels, seen["10"].pixels, strict=True):
        assert torch.equal(ours, theirs)
    assert seen["0"].losses[0] == seen["10"].losses[0]  # the same weights and views
    assert seen["0"].losses[1] != seen["10"].losses[1]


def step_once(run_tiny, *words):
    """The encoder's weights before and after one plain SGD step of rate 1."""
    start, end = {}, {}

    class Weights(Callback):
        def on_train_start(self, trainer, module):
            start.update({name: p.detach().clone() for name, p in module.method.named_parameters()})

        def on_train_end(self, trainer, module):
            end.update({name: p.detach().clone() for name, p in module.method.named_parameters()})

    plain = ["optimizer.lr=16", "optimizer.weight_decay=0", "optimizer.momentum=0", "optimizer.warmup=0"]
    run_tiny("method=simclr", "trainer.max_steps=1", *plain, *words, callbacks=[Weights()])
    return start, end


@pytest.fixture
def loss_scaler(monkeypatch):
    """16-mixed on a CPU, where the trainer does not offer it: gradients are scaled until the step."""

    def build(*, precision, plugins, **options):
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        trainer = Trainer(plugins=[*plugins, MixedPrecision("16-mixed", "cpu", scaler)], **options)
        assert trainer.precision_plugin.scaler is scaler
        return trainer

    monkeypatch.setattr(strategies, "Trainer", build)


SCALED = pytest.mark.parametrize("scaled", [False, True], ids=["32-true", "16-mixed"])


@SCALED
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_penalty_is_added_once_a_step_to_the_encoders_weights_alone(run_tiny, request, scaled, accumulate):
    if scaled:
        request.getfixturevalue("loss_scaler")
    words = [f"trainer.accumulate={accumulate}", f"optimizer.lr={16 / accumulate}"]
    start, baseline = step_once(run_tiny, *words, "penalty.gamma=0")
    _, regularized = step_once(run_tiny, *words, "penalty.gamma=1e-3")
    encoder = ResNet18(width=4).build(channels=1, size=8)
    encoder.load_state_dict(
        {k.removeprefix("encoder."): v for k, v in start.items() if k.startswith("encoder.")}, strict=False
    )
    penalty = OrthogonalityPenalty(encoder, kind="so", gamma=1e-3)
    penalty().backward()
    covered = {f"encoder.{name}" for name, _, _ in penalty.weights()}
    gradients = {f"encoder.{name}": p.grad for name, p in encoder.named_parameters()}
    assert covered
    for name, value in baseline.items():
        if name in covered:
            torch.testing.assert_close(value - regularized[name], gradients[name], rtol=1e-3, atol=1e-5)
        else:
            assert torch.equal(value, regularized[name]), name


@pytest.mark.parametrize("accumulate", [1, 3])
@SCALED
def test_clipping_bounds_the_norm_of_all_gradients_the_penaltys_included(run_tiny, request, scaled, accumulate):
    if scaled:
        request.getfixturevalue("loss_scaler")
    # Of rate 1: the step is the gradient.
    words = ["penalty.gamma=1", f"trainer.accumulate={accumulate}", f"optimizer.lr={16 / accumulate}"]
    start, end = step_once(run_tiny, *words, "trainer.clip=0.25")
    steps = {name: end[name] - value for name, value in start.items()}
    norms = [step.double().norm() for name, step in steps.items()]
    assert torch.stack(norms).norm().item() == pytest.approx(0.25, rel=1e-4)
    _, free = step_once(run_tiny, *words)
    scale = torch.cat([(free[name] - value).flatten() for name, value in start.items()]).norm() / 0.25
    assert scale > 10  # far above the clip, and the penalty's gradient more than half of it
    for name, value in start.items():
        torch.testing.assert_close(steps[name] * scale, free[name] - value, rtol=1e-3, atol=1e-3)


def test_the_teacher_can_be_judged_and_a_method_without_one_says_so(run_tiny, tmp_path):
    words = ["method=byol", "optimizer.lr=100", "optimizer.warmup=0"]
    student, teacher = (
        json.loads((run_tiny(*words, f"evaluation.network={name}") / "results.json").read_text())
        for name in ("student", "teacher")
    )
    assert (student["network"], teacher["network"]) == ("student", "teacher")
    assert student["representation_rankme"] != teacher["representation_rankme"]
    assert student["penalty_raw"] == teacher["penalty_raw"]  # of the student, which is trained
    runs = set((tmp_path / "runs").iterdir())
    with pytest.raises(TrainerError, match=r"evaluation\.network=teacher: SimCLR has no teacher"):
        run_tiny("method=simclr", "evaluation.network=teacher")
    assert set((tmp_path / "runs").iterdir()) == runs


def test_the_loss_falls_over_a_short_run(run_tiny):
    folder = run_tiny("method=simclr", "trainer.max_steps=40", "trainer.batch_size=64", "optimizer.lr=0.2")
    losses = [row["loss"] for row in read_metrics(folder / "metrics.csv")]
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5


def test_a_loss_that_is_not_finite_stops_with_its_step_and_layer_and_keeps_the_last_checkpoint(run_tiny, tmp_path):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if index == 2:
                with torch.no_grad():
                    module.method.encoder.layer2[0].conv1.weight[0, 0] = float("nan")

    with pytest.raises(TrainerError, match=r"nan at step 2.*encoder\.layer2\.0\.conv1\.weight"):
        run_tiny("trainer.max_steps=5", "trainer.checkpoint_every=2", callbacks=[Poison()])
    [folder] = (tmp_path / "runs").iterdir()
    assert [path.name for path in checkpoint_files(folder / "checkpoints")] == ["step-000000002.ckpt"]


def test_a_gradient_that_is_not_finite_stops_before_the_step_is_taken(run_tiny, tmp_path):
    class Poison(Callback):
        def on_after_backward(self, trainer, module):
            if trainer.global_step == 2:
                module.method.encoder.layer3[1].conv2.weight.grad[0, 0] = float("inf")

    with pytest.raises(TrainerError, match=r"gradients are not finite at step 2.*encoder\.layer3\.1\.conv2\.weight"):
        run_tiny("trainer.max_steps=5", "trainer.checkpoint_every=1", callbacks=[Poison()])
    [folder] = (tmp_path / "runs").iterdir()
    weights = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])["state_dict"]
    assert all(value.isfinite().all() for value in weights.values())


def test_a_penalty_that_is_not_finite_is_named_as_the_cause(run_tiny):
    with pytest.raises(TrainerError, match=r"^The penalty is inf at step 0; the losses are finite\."):
        run_tiny("penalty.gamma=1e38")


class SeenAt(Callback):
    """The step under way and the weights when a run fails."""

    def on_exception(self, trainer, module, exception):
        self.step = trainer.global_step
        self.finite = all(p.isfinite().all() for p in module.method.parameters())


@pytest.mark.parametrize(
    ("words", "seen_at"),
    [
        (["trainer.log_every=50", "trainer.checkpoint_every=50"], 3),  # a step late
        (["trainer.log_every=3", "trainer.checkpoint_every=50"], 3),  # before its row is written
        (["trainer.log_every=50", "trainer.checkpoint_every=3"], 3),  # before it is saved
        (["trainer.log_every=50", "trainer.checkpoint_every=50", "trainer.max_steps=3"], 3),  # or the run ends
        (["trainer.log_every=50", "trainer.checkpoint_every=50", "trainer.accumulate=2"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.parametrize("poisoned", ["loss", "gradient"])
def test_a_step_that_is_not_finite_harms_no_weight_and_is_written_nowhere(run_tiny, tmp_path, words, seen_at, poisoned):
    class Poison(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if poisoned == "loss" and trainer.global_step == 2:
                with torch.no_grad():
                    module.method.encoder.layer2[0].conv2.weight.fill_(1e38)  # finite, and its outputs are not

        def on_after_backward(self, trainer, module):
            if poisoned == "gradient" and trainer.global_step == 2:
                module.method.encoder.layer3[1].conv2.weight.grad[0, 0] = float("nan")

    said = {
        "loss": r"The loss is nan at step 2; the first layer whose output is not finite is encoder\.layer2\.0\.conv2\.",
        "gradient": r"The gradients are not finite at step 2; backward went wrong at encoder\.layer3\.1\.conv2\.weight\.",
    }
    seen = SeenAt()
    with pytest.raises(TrainerError, match=said[poisoned]):
        run_tiny("trainer.max_steps=9", *words, callbacks=[Poison(), seen])
    assert (seen.step, seen.finite) == (seen_at, True)
    [folder] = (tmp_path / "runs").iterdir()
    assert [row["step"] for row in read_metrics(folder / "metrics.csv")] == [1]
    assert not checkpoint_files(folder / "checkpoints")


def test_the_cause_is_sought_at_the_precision_of_the_run(run_tiny):
    class Poison(Callback):
        """Overflows as float16 does, at the precision of autocast alone."""

        def on_train_start(self, trainer, module):
            def overflow(layer, inputs, output):
                return output + float("inf") if trainer.global_step >= 1 and output.dtype is torch.bfloat16 else None

            module.method.encoder.layer2[0].conv2.register_forward_hook(overflow)

    with pytest.raises(TrainerError, match=r"at step 1; the first layer .* is encoder\.layer2\.0\.conv2\."):
        run_tiny("trainer.max_steps=3", "trainer.precision=bf16-mixed", callbacks=[Poison()])


@pytest.mark.parametrize("compiled", [False, True])
def test_the_layer_that_first_gives_something_not_finite_is_named(compiled):
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()

    network = nn.Sequential(nn.Linear(3, 4), nn.Sequential(Root(), nn.Linear(4, 2)))
    if compiled:
        network.compile(backend="eager")
        with torch.no_grad():
            network(torch.randn(50, 3))
    assert first_non_finite_layer(network, lambda: network(torch.randn(50, 3))) == "1.0"
    network[1][0] = nn.ReLU()
    assert first_non_finite_layer(network, lambda: network(torch.randn(50, 3))) is None


def test_a_logger_that_is_not_installed_is_named(run_tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(TrainerError, match="pip install wandb"):
        run_tiny("trainer.wandb=project")


def test_checkpoints_are_rotated_and_hold_their_configuration(run_tiny):
    folder = run_tiny("trainer.max_steps=5", "trainer.checkpoint_every=1")
    files = checkpoint_files(folder / "checkpoints")
    assert [path.name for path in files] == ["step-000000005.ckpt", "step-000000004.ckpt"]
    checkpoint = read_checkpoint(files[0])  # weights_only=True
    assert checkpoint["configuration"]["method"]["name"] == "byol"
    assert not any(name.startswith("penalty.encoder") for name in checkpoint["state_dict"])


def test_bf16_autocast_leaves_the_penalty_in_float32(run_tiny):
    exact = read_metrics(run_tiny() / "metrics.csv")
    mixed = read_metrics(run_tiny("trainer.precision=bf16-mixed") / "metrics.csv")
    assert mixed[0]["penalty_raw"] == exact[0]["penalty_raw"]
    assert mixed[0]["loss"] != exact[0]["loss"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.batch_size=5000", "larger than the data"),
        ("trainer.threads=0", "trainer.threads must be at least 1; got 0"),
        ("trainer.devices=2", "trainer.devices=2 takes several processes: add trainer=ddp or trainer=fsdp2"),
        ("trainer.nodes=2", "trainer.nodes=2 takes several processes"),
        ("trainer.compile=nonsense", "trainer.compile=nonsense: torch has no such compiler; it has "),
        ("data.views.max_area=0.01", "is more than max_area=0.01"),
        ("data.views.local.max_area=0.01", "data.views.local: min_area=0.05 is more than max_area=0.01"),
    ],
)
def test_values_that_make_no_sense_are_refused_before_anything_is_written(run_tiny, tmp_path, word, said):
    with pytest.raises(TrainerError) as caught:
        run_tiny(word)
    assert said in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("trainer.precision=16-mixed", "16-mixed needs a GPU: on a CPU take bf16-mixed or 32-true"),
        ("trainer.accelerator=gpu", "trainer.accelerator=gpu: torch sees no GPU here; take auto or cpu"),
        ("trainer.accelerator=mps", "trainer.accelerator=mps: torch sees no Apple GPU here"),
    ],
)
def test_what_takes_a_device_that_is_not_here_is_refused(run_tiny, tmp_path, word, said):
    with pytest.raises(TrainerError, match=re.escape(said)):
        run_tiny(word)
    assert not (tmp_path / "runs").exists()


def test_layers_can_be_chosen(run_tiny):
    folder = run_tiny("penalty.include=[layer4.*]", "penalty.exclude=[*downsample*]")
    layers = json.loads((folder / "spectra.json").read_text())["weights"]
    assert len(layers) == 4
    assert all(name.startswith("layer4.") for name in layers)


def test_spread_is_one_for_even_directions_and_zero_after_a_collapse():
    assert spread(torch.randn(4000, 16)).item() == pytest.approx(1.0, abs=0.02)
    assert spread(torch.ones(10, 16)).item() == pytest.approx(0.0, abs=1e-6)
