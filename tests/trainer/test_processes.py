"""Two processes of a run: the gradients of one process with the joint batch, ranks that stay the same, one that dies."""

import atexit
import math
import os
import signal
from functools import partial

import pytest
import torch
import torch.distributed as dist
from bare_runs import train
from lightning.pytorch import Callback
from small_methods import WITH_MEMORY, backbone_of, small_heads
from tiny import SMALL_DECODER
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.distributed.batch_norm import convert_batch_norms
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.engine.finite_steps import Batch, FiniteSteps
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.runs.lock import acquire_lock
from ortho_kernels.trainer.runs.pretrain import pretrain

WORDS = [
    "data=digits",
    "penalty=srip",
    "penalty.gamma=1e-3",
    "backbone.width=4",
    "method.hidden=16",
    "method.projection=8",
    "data.views.local.count=1",
    "trainer.batch_size=16",
    "trainer.max_steps=2",
    "trainer.precision=64-true",  # so that nothing but a difference in the mathematics shows
    "trainer.tensorboard=false",
]
NETWORKS = {"mae": ["backbone.depth=1", *SMALL_DECODER]}


class Record(Callback):
    """Writes the gradients of the first step and the weights after the last."""

    def __init__(self, path):
        self.path = path
        self.content = {}

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.global_step == 0:
            named = module.method.named_parameters()
            self.content["gradients"] = {name: p.grad.clone() for name, p in named if p.grad is not None}

    def on_train_end(self, trainer, module):
        self.content["weights"] = dict(module.method.state_dict())
        torch.save(self.content, f"{self.path}-{trainer.global_rank}.pt")


def record(ranks, folder, words, name):
    """Trains, and leaves what `Record` writes in `folder` under that name."""
    kept = [word for word in WORDS if "method=mae" not in words or not word.startswith(("method.", "backbone."))]
    config = load_config([*kept, *words, f"runs={folder / 'runs'}"])
    return train(ranks, config, [Record(folder / name)])


def train_each(ranks, folder, words=()):
    """Every method on these processes, one after the other. What remembers earlier images does so batch by batch."""
    for name in METHODS:
        options = [
            *small_heads(name),
            backbone_of(name),
            *NETWORKS.get(name, []),
            *["trainer.accumulate=2"] * (name in WITH_MEMORY),
        ]
        done = record(ranks, folder, [f"method={name}", *options, *words], f"{name}-of-{ranks.count}")
    return done


def test_two_processes_have_the_gradients_of_one_and_stay_the_same(tmp_path):
    train_each(ALONE, tmp_path)
    launch_processes(2, "gloo", 60.0, partial(train_each, folder=tmp_path, words=["trainer=ddp"]))
    for method in METHODS:
        one, first, second = (torch.load(tmp_path / f"{method}-of-{name}.pt") for name in ("1-0", "2-0", "2-1"))
        assert one["gradients"].keys() == first["gradients"].keys()
        for name, gradient in one["gradients"].items():
            torch.testing.assert_close(first["gradients"][name], gradient, atol=1e-9, rtol=1e-7)
        for name, weight in first["weights"].items():
            assert torch.equal(weight, second["weights"][name]), f"{method} {name}"
        memories = [name for name in one["weights"] if name.endswith((".vectors", ".oldest", "center.mean"))]
        assert bool(memories) == (method in WITH_MEMORY)
        for name in memories:
            torch.testing.assert_close(first["weights"][name], one["weights"][name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["byol", "mae"])
def test_weights_shared_out_over_two_processes_train_as_copies_do(tmp_path, method):
    """Copies train as one process does: that is seen above, in float64, which Lightning's fsdp2 does not take."""
    words = [f"method={method}", backbone_of(method), *NETWORKS.get(method, []), "trainer.precision=32-true"]
    copied, shared = (
        launch_processes(
            2, "gloo", 60.0, partial(record, folder=tmp_path, words=[*words, f"trainer={strategy}"], name=strategy)
        )
        for strategy in ("ddp", "fsdp2")
    )
    expected, found = (
        read_checkpoint(checkpoint_files(run / "checkpoints")[0])["state_dict"] for run in (copied, shared)
    )
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-6)


def test_prototypes_shared_out_are_normalized_in_place_as_whole_ones_are(tmp_path):
    heads = ["method.prototypes=16", "method.freeze=0", "method.queue=0", "method.normalize_in_place=true"]
    words = ["method=swav", *heads, "optimizer.warmup=0", "trainer.precision=32-true"]
    one = record(ALONE, tmp_path, words, "one")
    two = launch_processes(
        2, "gloo", 60.0, partial(record, folder=tmp_path, words=[*words, "trainer=fsdp2"], name="two")
    )
    expected, found = (
        read_checkpoint(checkpoint_files(run / "checkpoints")[0])["state_dict"]["method.prototypes.weight"]
        for run in (one, two)
    )
    torch.testing.assert_close(expected.norm(dim=1), torch.ones(16))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_clip_the_norm_that_one_would(tmp_path, strategy):
    words = [
        "method=simclr",
        "penalty.gamma=1.0",
        "trainer.clip=0.01",
        "optimizer.warmup=0",
        "trainer.precision=32-true",
    ]
    one = record(ALONE, tmp_path, words, "one")
    work = partial(record, folder=tmp_path, words=[*words, f"trainer={strategy}"], name="two")
    two = launch_processes(2, "gloo", 60.0, work)
    expected, found = (read_checkpoint(checkpoint_files(run / "checkpoints")[0])["state_dict"] for run in (one, two))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-4)


class Die(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_rank == 1 and trainer.global_step == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def test_when_a_process_dies_the_others_stop_and_the_error_says_which(tmp_path):
    config = load_config([*WORDS, "trainer=ddp", f"runs={tmp_path}"])
    with pytest.raises(TrainerError, match=r"Process 1 was ended by SIGKILL.*resume=auto"):
        pretrain(config, [Die()])


def step_with_a_loss_of_nan(ranks, folder):
    """The loss of the last process is no number, and its gradient that of no process."""
    steps = FiniteSteps(ranks)
    gradient = torch.ones(3)
    loss = torch.tensor(1.0 if ranks.rank == 0 else torch.nan)
    steps.add_batch(Batch(torch.zeros(1), 0, loss))
    steps.close(7, torch.zeros(()), {"weight": gradient})
    bad = steps.first_not_finite(wait=True)
    assert (bad.step, bad.parameter, math.isnan(bad.loss)) == (7, None, True)
    assert not gradient.any()
    return folder


def test_a_loss_that_is_not_finite_on_one_process_stops_all_for_that_reason(tmp_path):
    assert launch_processes(2, "gloo", 60.0, partial(step_with_a_loss_of_nan, folder=tmp_path)) == tmp_path


class StopOne(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_rank == 1 and trainer.global_step == 1:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_to_one_process_stops_all_a_step_later_with_one_checkpoint(tmp_path):
    config = load_config([*WORDS, "trainer=ddp", "trainer.max_steps=9", f"runs={tmp_path}"])
    with pytest.raises(TrainerError, match=r"Stopped by SIGTERM at step 3, which is saved"):
        pretrain(config, [StopOne()])
    [folder] = tmp_path.iterdir()
    assert [path.name for path in checkpoint_files(folder / "checkpoints")] == ["step-000000003.ckpt"]


def test_a_run_that_another_process_holds_stops_all_with_its_message(tmp_path):
    words = [*WORDS, f"runs={tmp_path}", "trainer.devices=2", "trainer.checkpoint_every=1"]
    folder = launch_processes(2, "gloo", 60.0, partial(record, folder=tmp_path, words=["trainer=ddp"], name="first"))
    with acquire_lock(folder), pytest.raises(TrainerError, match=rf"held by process {os.getpid()} "):
        pretrain(load_config([*words, "trainer=ddp", f"resume={folder}"]))


def leave_collectives_running(ranks, folder):
    shard = distribute_tensor(torch.ones(2), dist.init_device_mesh("cpu", (ranks.count,)), [Shard(0)])
    shard.full_tensor()
    for _ in range(3000):
        dist.all_reduce(torch.ones(100_000), async_op=True)
    atexit.register((folder / f"left-{ranks.rank}").touch)
    return folder


def test_what_torch_still_frees_when_a_process_ends_is_no_failure(tmp_path):
    assert launch_processes(2, "gloo", 60.0, partial(leave_collectives_running, folder=tmp_path)) == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {"left-0", "left-1"}


def test_synchronized_batch_norm_keeps_names_and_values():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.BatchNorm1d(3, affine=False)))
    module[1].weight.data.fill_(0.3)
    module[1].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    after = convert_batch_norms(module, on_gpu=False)
    assert {name: value.tolist() for name, value in after.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }
    assert not after[1].weight.requires_grad
    images = torch.randn(4, 2, 3, 3)
    torch.testing.assert_close(
        after[1](images), nn.functional.batch_norm(images, None, None, before["1.weight"], before["1.bias"], True)
    )
