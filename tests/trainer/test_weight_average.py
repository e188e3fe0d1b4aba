"""`trainer.ema`: the average of the encoder's weights, which evaluation and export may take and training never sees."""

import json
from functools import partial

import pytest
import torch
from bare_runs import train
from lightning.pytorch import Callback
from torch import nn

from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.averages import average_of, follow
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder, load_encoder
from ortho_kernels.trainer.report.metrics_file import read_metrics

SHORT = [
    "data=outside_parts:Noise",
    "trainer.batch_size=16",
    "trainer.max_steps=4",
    "backbone.width=2",
    "optimizer.lr=1",
    "optimizer.warmup=0",
]
TIMINGS = {"images_per_second", "penalty_share"}
PREFIX = "method.ema."


def checkpoint_of(folder):
    return read_checkpoint(checkpoint_files(folder / "checkpoints")[0])


def average_in(state):
    return {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}


class Weights(Callback):
    """The encoder's state before the first step and after each one."""

    def __init__(self):
        self.states = []

    def on_train_start(self, trainer, module):
        self._keep(module)

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if (index + 1) % trainer.accumulate_grad_batches == 0:
            self._keep(module)

    def _keep(self, module):
        self.states.append({name: value.clone() for name, value in module.method.encoder.state_dict().items()})


@pytest.mark.parametrize("words", [["method=byol"], ["method=simclr", "trainer.accumulate=3", "optimizer=adamw"]])
def test_it_is_the_average_of_the_weights_after_each_step(tiny, words):
    weights = Weights()
    folder = train(ALONE, tiny(*SHORT, *words, "trainer.ema=0.7"), [weights])
    first, *later = weights.states
    assert len(later) == 4
    found = average_in(checkpoint_of(folder)["state_dict"])
    assert found.keys() == first.keys()
    for name, value in found.items():
        expected = first[name].double()
        for state in later:
            expected = 0.7 * expected + 0.3 * state[name].double()
        if "running" in name or "num_batches" in name:
            expected = later[-1][name]  # statistics of batches are averages already
        torch.testing.assert_close(value.double(), expected.double(), atol=1e-6, rtol=1e-6)
    assert not torch.equal(found["conv1.weight"], later[-1]["conv1.weight"])


@pytest.mark.parametrize(
    "words", [["method=byol", "penalty=srip", "penalty.warm_start=true"], ["method=swav", "optimizer=lars"]]
)
def test_the_training_has_the_same_bits_with_and_without(tiny, words):
    heads = ["method.prototypes=16", "method.queue=32", "data.views.local.count=1"] if "method=swav" in words else []
    folders = [train(ALONE, tiny(*SHORT, *words, *heads, f"trainer.ema={ema}")) for ema in ("null", "0.9")]
    without, kept = (checkpoint_of(folder) for folder in folders)
    assert kept["state_dict"].keys() - without["state_dict"].keys() == {
        f"{PREFIX}{name.removeprefix('method.encoder.')}"
        for name in without["state_dict"]
        if name.startswith("method.encoder.")
    }
    for name, value in without["state_dict"].items():
        assert torch.equal(value, kept["state_dict"][name]), name
    [[one], [other]] = ([state["param_groups"] for state in each["optimizer_states"]] for each in (without, kept))
    assert [group["params"] for group in one] == [group["params"] for group in other]
    rows = [
        [{key: value for key, value in row.items() if key not in TIMINGS} for row in read_metrics(f / "metrics.csv")]
        for f in folders
    ]
    assert rows[0] == rows[1]


class Crash(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 3:
            raise RuntimeError("the power went out")


def test_a_resume_is_exact(tiny):
    words = [*SHORT, "method=byol", "trainer.ema=0.9", "trainer.checkpoint_every=1", "resume=auto"]
    whole = checkpoint_of(train(ALONE, tiny(*words, f"runs={tiny().runs}-whole")))
    with pytest.raises(RuntimeError, match="the power went out"):
        train(ALONE, tiny(*words), [Crash()])
    again = checkpoint_of(train(ALONE, tiny(*words)))
    assert average_in(again["state_dict"])
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][name]), name


def test_it_can_be_judged_and_exported(run_tiny, tmp_path):
    all_pictures = ["evaluation.train_images=64", "evaluation.test_images=64"]
    words = ["method=simclr", "trainer.ema=0.5", "evaluation.every=1", "trainer.max_steps=3", *all_pictures]
    student, average = (run_tiny(*SHORT, *words, f"evaluation.network={name}") for name in ("student", "ema"))
    results = [json.loads((folder / "results.json").read_text()) for folder in (student, average)]
    assert [each["network"] for each in results] == ["student", "ema"]
    assert results[0]["representation_rankme"] != results[1]["representation_rankme"]
    assert results[0]["penalty_raw"] == results[1]["penalty_raw"]  # of the student, which is trained
    rows = [read_metrics(folder / "evaluations.csv")[-1]["rankme"] for folder in (student, average)]
    assert rows == pytest.approx([each["representation_rankme"] for each in results], rel=1e-4)
    export_encoder(average, tmp_path / "encoder.safetensors")
    exported = load_encoder(tmp_path / "encoder.safetensors").state_dict()
    kept = average_in(checkpoint_of(average)["state_dict"])
    assert exported.keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in exported.items())


def test_without_one_it_cannot_be_judged(run_tiny, tmp_path):
    with pytest.raises(TrainerError, match=r"evaluation\.network=ema: .* give trainer\.ema=0\.999 too"):
        run_tiny(*SHORT, "evaluation.network=ema")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("momentum", ["-0.1", "1.5"])
def test_its_momentum_lies_between_0_and_1(tiny, momentum):
    with pytest.raises(TrainerError, match=r"trainer\.ema must be between 0 and 1"):
        tiny(f"trainer.ema={momentum}")


def test_a_copy_is_not_trained_and_follows_tied_weights_once():
    network = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3))
    network[1].weight = network[0].weight
    average = average_of(network)
    before = average[0].weight.clone()
    assert not any(parameter.requires_grad for parameter in average.parameters())
    with torch.no_grad():
        network[0].weight.add_(1)
    network(torch.randn(5, 3))
    follow(average, network, 0.75)
    torch.testing.assert_close(average[1].weight, before + 0.25)
    assert torch.equal(average[2].running_mean, network[2].running_mean)
    assert average[2].num_batches_tracked == 1


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_keep_the_average_that_one_would(tiny, strategy):
    # Float32: pictures of little contrast would make much of its rounding.
    calm = ["optimizer.lr=0.1", "data.views.jitter=0"]
    words = [*SHORT, *calm, "method=byol", "trainer.ema=0.7", "evaluation.network=ema"]
    one = train(ALONE, tiny(*words))
    config = tiny(*words, f"trainer={strategy}", "trainer.timeout=60", "trainer.checkpoint_every=2")
    two = launch_processes(2, "gloo", 60.0, partial(train, config=config))
    expected, found = (average_in(checkpoint_of(folder)["state_dict"]) for folder in (one, two))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")
    whole = checkpoint_of(two)["state_dict"]
    checkpoint_files(two / "checkpoints")[0].unlink()
    config = tiny(*words, f"trainer={strategy}", "trainer.timeout=60", "trainer.checkpoint_every=2", f"resume={two}")
    assert launch_processes(2, "gloo", 60.0, partial(train, config=config)) == two
    for name, value in whole.items():
        assert torch.equal(value, checkpoint_of(two)["state_dict"][name]), name
