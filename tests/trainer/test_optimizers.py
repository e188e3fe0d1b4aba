"""Who decays, how the rate scales, and how the schedule runs."""

import pytest
import torch
from torch import nn

from ortho_kernels.trainer.backbones.vit import ViTTinySettings, build_vit
from ortho_kernels.trainer.optimizers import OPTIMIZERS, build_optimizer, build_schedule, parameter_groups


def test_norms_biases_and_embeddings_do_not_decay():
    vit = build_vit(ViTTinySettings(patch=4, depth=1), channels=1, size=8)
    decayed, spared = (group["params"] for group in parameter_groups(vit, 0.1))
    assert {id(p) for p in decayed} == {id(m.weight) for m in vit.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    assert len(decayed) + len(spared) == len(list(vit.parameters()))


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2).requires_grad_(False)
    assert all(not group["params"] for group in parameter_groups(layer, 0.1))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_scales_with_the_batch_and_the_step_is_finite(name):
    layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    settings = OPTIMIZERS[name]()
    optimizer = build_optimizer(settings, layer, batch_size=512)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * settings.lr)
    layer(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in layer.parameters())


def test_the_schedule_warms_up_and_falls_to_zero():
    settings = OPTIMIZERS["sgd"](lr=1.0, warmup=0.1)
    optimizer = build_optimizer(settings, nn.Linear(2, 2), batch_size=256)
    schedule = build_schedule(settings, optimizer, steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_a_schedule(steps):
    settings = OPTIMIZERS["sgd"]()
    optimizer = build_optimizer(settings, nn.Linear(2, 2), batch_size=256)
    schedule = build_schedule(settings, optimizer, steps)
    for _ in range(steps):
        optimizer.step()
        schedule.step()
