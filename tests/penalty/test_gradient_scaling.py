"""`accumulate_gradients` under a GradScaler: before or after `unscale_`, it is the penalty in the loss."""

import pytest
import torch
from torch import nn

from ortho_kernels import OrthogonalityPenalty

STEPS = 20


def train(place, kind="so", **options):
    """The weights after 20 steps of mixed precision, with the penalty where `place` says."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    penalty = OrthogonalityPenalty(model, kind, gamma=0.05, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=7)
    for _ in range(STEPS):
        images = torch.randn(32, 8)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(images).float().square().mean()
        scaler.scale(loss + penalty() if place == "loss" else loss).backward()
        if place == "before unscale_":
            penalty.accumulate_gradients(scaler=scaler)
        if place == "after unscale_":
            scaler.unscale_(optimizer)
            penalty.accumulate_gradients()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return [weight.detach().clone() for weight in model.parameters()]


@pytest.mark.parametrize("place", ["before unscale_", "after unscale_"])
@pytest.mark.parametrize(
    ("kind", "options"), [("so", {}), ("srip", {}), ("srip", {"warm_start": True})], ids=["so", "srip", "warm"]
)
def test_equals_the_penalty_in_the_loss(backend, place, kind, options):
    expected = train("loss", kind, **options)
    without = train("nowhere", kind, **options)
    for weight, truth, bare in zip(train(place, kind, **options), expected, without, strict=True):
        torch.testing.assert_close(weight, truth, rtol=1e-4, atol=1e-6)
        if truth.dim() == 2:
            assert (truth - bare).abs().max() > 1e-2  # the penalty does something here


def test_a_scaler_that_has_unscaled_is_refused():
    model = nn.Linear(4, 3)
    penalty = OrthogonalityPenalty(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.randn(2, 4)).sum()).backward()
    scaler.unscale_(optimizer)
    before = model.weight.grad.clone()
    with pytest.raises(RuntimeError, match=r"has unscaled the gradients already: .*before scaler.unscale_"):
        penalty.accumulate_gradients(scaler=scaler)
    assert torch.equal(model.weight.grad, before)
    scaler.step(optimizer)
    scaler.update()
    penalty.accumulate_gradients(scaler=scaler)  # the next step's gradients are scaled again


def test_a_disabled_scaler_scales_nothing():
    model = nn.Linear(4, 3)
    penalty = OrthogonalityPenalty(model, gamma=1.0)
    penalty.accumulate_gradients(scaler=torch.amp.GradScaler("cpu", enabled=False))
    scaled, model.weight.grad = model.weight.grad, None
    penalty.accumulate_gradients()
    torch.testing.assert_close(scaled, model.weight.grad)


def test_anything_else_is_no_scaler():
    with pytest.raises(TypeError, match=r"scaler must be a torch\.amp\.GradScaler; got a float"):
        OrthogonalityPenalty(nn.Linear(4, 3)).accumulate_gradients(scaler=1024.0)


def test_the_scale_stays_on_its_device(backend, monkeypatch):
    """No number is read back: on a GPU that would wait for it."""
    model = nn.Linear(4, 3)
    penalty = OrthogonalityPenalty(model, "srip")
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(model(torch.randn(2, 4)).sum()).backward()

    def read(*_):
        raise AssertionError("a tensor was read")

    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, read)
    penalty.accumulate_gradients(scaler=scaler)
