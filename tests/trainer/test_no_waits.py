"""What makes a step wait for the device, and steps that do not: see also the tests on a pretended GPU."""

from functools import partial

import pytest
import torch
from bare_runs import train
from between_rows import Between, config_of, train_watched
from small_methods import backbone_of, small_heads
from waits import Waits

from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.distributed.batch_norm import SyncBatchNorm
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes


@pytest.mark.parametrize("kind", ["two", "asymmetric", "multicrop"])
def test_nor_do_views_of_color_images(kind):
    images = torch.randint(0, 256, (6, 3, 14, 14), dtype=torch.uint8)
    views = Views(plan_views(kind, ViewSettings(solarize=0.5), 14), 14, images, seed=0)
    with Waits() as waits:
        views(images, 0)
    assert waits.seen == []


def write_waits(ranks, folder):
    _, waits = train_watched(ranks, config_of(folder, ["trainer=ddp"]))
    (folder / f"waits-{ranks.rank}").write_text("\n".join(waits))


def test_nor_does_one_of_two_processes(tmp_path):
    """Nor for the others: it fails too where Lightning gives `_broadcast_sigterm_tensor` another name."""
    launch_processes(2, "gloo", 60.0, partial(write_waits, folder=tmp_path))
    assert [(tmp_path / f"waits-{rank}").read_text() for rank in range(2)] == ["", ""]


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


METHODS_THAT_DIFFER = [[f"method={name}", backbone_of(name), *small_heads(name)] for name in ("dino", "swav", "mae")]


@pytest.mark.gpu
@pytest.mark.parametrize(
    "words",
    [[], ["penalty=srip"], ["optimizer=lars"], ["trainer.precision=bf16-mixed"], *METHODS_THAT_DIFFER],
    ids=" ".join,
)
def test_a_gpu_is_not_waited_for(tmp_path, words):
    """torch raises an error where an operation synchronizes."""
    mode = torch.cuda.set_sync_debug_mode
    watch = Between(partial(mode, "error"), partial(mode, "default"))
    try:
        train(ALONE, config_of(tmp_path, ["trainer=gpu", *words]), [watch])
    finally:
        mode("default")
