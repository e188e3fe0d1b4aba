"""Between the steps at which figures are asked for, no training step waits for the device."""

import json
from functools import partial

import pytest
import torch
from bare_runs import train
from lightning.pytorch import Callback
from small_methods import backbone_of, small_heads
from tiny import tiny_words
from waits import Waits

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.distributed.batch_norm import SyncBatchNorm
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.methods import METHODS

# Steps 1, 4 and 5 write a row; nobody asks for a figure of steps 2 and 3.
STEPS = ["trainer.max_steps=5", "trainer.log_every=4", "penalty.gamma=1e-3", "trainer.tensorboard=false"]


class Between(Callback):
    """Calls one function before step 2 and another after step 3: what other callbacks do lies between."""

    def __init__(self, start, stop):
        self.start, self.stop = start, stop
        self.batches = 0

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 1 and self.batches == 0:
            self.start()
        if trainer.global_step == 3 and self.batches:
            self.stop()
            self.batches = 0
        elif trainer.global_step in (1, 2):
            self.batches += 1


def config_of(folder, words):
    return load_config([*tiny_words(*words), *STEPS, *words, f"runs={folder / 'runs'}"])


def waits_of(ranks, folder, words):
    """Of steps 2 and 3; each process writes its own to a file."""
    waits = Waits()
    watch = Between(waits.__enter__, partial(waits.__exit__, None, None, None))
    train(ranks, config_of(folder, words), [watch])
    (folder / f"waits-{ranks.rank}").write_text(json.dumps(waits.seen))
    return folder


def read_waits(folder, rank=0):
    return json.loads((folder / f"waits-{rank}").read_text())


@pytest.mark.parametrize(
    ("method", "backbone"),
    [*((name, backbone_of(name)) for name in METHODS), *((name, "backbone=vit_tiny") for name in ("dino", "mocov3"))],
)
def test_a_step_of_any_method_does_not_wait(tmp_path, method, backbone):
    waits_of(ALONE, tmp_path, [f"method={method}", backbone, *small_heads(method)])
    assert read_waits(tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=lars"],
        ["optimizer=adamw"],
        ["penalty=srip"],
        ["penalty=srip", "penalty.warm_start=true"],
        ["penalty=decay"],
        ["penalty=none", "penalty.gamma=0"],
        ["trainer.accumulate=2"],
        ["trainer.precision=bf16-mixed"],
    ],
    ids=" ".join,
)
def test_nor_does_one_with_any_option(tmp_path, words):
    waits_of(ALONE, tmp_path, words)
    assert read_waits(tmp_path) == []


@pytest.mark.parametrize("kind", ["two", "asymmetric", "multicrop"])
def test_nor_do_views_of_color_images(kind):
    images = torch.randint(0, 256, (6, 3, 14, 14), dtype=torch.uint8)
    views = Views(plan_views(kind, ViewSettings(solarize=0.5), 14), 14, images, seed=0)
    with Waits() as waits:
        views(images, 0)
    assert waits.seen == []


def test_nor_does_one_of_two_processes(tmp_path):
    """Nor for the others: it fails too where Lightning gives `_broadcast_sigterm_tensor` another name."""
    launch_processes(2, "gloo", 60.0, partial(waits_of, folder=tmp_path, words=["trainer=ddp"]))
    assert read_waits(tmp_path, 0) == read_waits(tmp_path, 1) == []


def test_synchronized_batch_norm_without_momentum_does_not_wait_and_takes_the_mean_of_all_batches():
    module = SyncBatchNorm(2, momentum=None)
    means, variances = torch.randn(3, 2), torch.rand(3, 2)
    with Waits() as waits:
        for mean, variance in zip(means, variances, strict=True):
            module._track(mean, variance, count=5)
    assert waits.seen == []
    torch.testing.assert_close(module.running_mean, means.mean(0))
    torch.testing.assert_close(module.running_var, variances.mean(0) * 5 / 4)


MASK = torch.tensor([True, False])


@pytest.mark.parametrize(
    ("wait", "operation"),
    [
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: float(x[0]), "_local_scalar_dense"),
        (lambda x: bool(x.isfinite().all()), "_local_scalar_dense"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x[MASK], "index"),
        (lambda x: x.index_put_((MASK,), x[0]), "index_put_"),
        (lambda x: x.masked_select(MASK), "masked_select"),
        (lambda x: torch.equal(x, x), "equal"),
        (lambda x: x.new_tensor([1.0]), "lift_fresh"),
        (lambda x: torch.tensor(1.0), "lift_fresh"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.cpu(), "cpu"),
        (lambda x: x.numpy(), "numpy"),
    ],
)
def test_what_waits_is_seen_with_its_place(wait, operation):
    with Waits() as waits:
        wait(torch.ones(2))
    assert waits.seen
    assert all(f".{operation} at test_no_waits.py:" in line for line in waits.seen)


def test_what_waits_in_backward_is_seen():
    x = torch.ones(2, requires_grad=True)
    y = 2 * x
    y.register_hook(lambda gradient: gradient.sum().item() and None)
    with Waits() as waits:
        y.sum().backward()
    assert len(waits.seen) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("words", [[], ["penalty=srip"], ["optimizer=lars"], ["trainer.precision=bf16-mixed"]])
def test_a_gpu_is_not_waited_for(tmp_path, words):
    """torch raises an error where an operation synchronizes."""
    mode = torch.cuda.set_sync_debug_mode
    watch = Between(partial(mode, "error"), partial(mode, "default"))
    try:
        train(ALONE, config_of(tmp_path, ["trainer=gpu", *words]), [watch])
    finally:
        mode("default")
