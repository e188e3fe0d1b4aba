"""Who decays, how the rate scales, and how the schedule runs."""

import pytest
import torch
from lightly.utils.lars import LARS as LightlyLARS
from torch import nn

from ortho_kernels.trainer.backbones.vit import ViTTiny
from ortho_kernels.trainer.engine.lars import LARS
from ortho_kernels.trainer.engine.optimizers import (
    OPTIMIZERS,
    build_optimizer,
    build_schedule,
    half_cosine,
    parameter_groups,
)
from ortho_kernels.trainer.errors import TrainerError


def test_norms_biases_and_embeddings_do_not_decay():
    vit = ViTTiny(patch=4, depth=1).build(channels=1, size=8)
    decayed, spared = (group["params"] for group in parameter_groups(vit, OPTIMIZERS["sgd"]()))
    assert {id(p) for p in decayed} == {id(m.weight) for m in vit.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    assert len(decayed) + len(spared) == len(list(vit.parameters()))


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2).requires_grad_(False)
    assert all(not group["params"] for group in parameter_groups(layer, OPTIMIZERS["sgd"]()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_rate_scales_with_the_batch_and_the_step_is_finite(name):
    layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    settings = OPTIMIZERS[name]()
    optimizer = build_optimizer(settings, layer, batch_size=512)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * settings.lr)
    layer(torch.randn(4, 3)).square().mean().backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in layer.parameters())


def test_adamw_takes_its_betas():
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(OPTIMIZERS["adamw"](betas=[0.8, 0.95]), layer, batch_size=256)
    assert [group["betas"] for group in optimizer.param_groups] == [(0.8, 0.95)] * 2
    assert build_optimizer(OPTIMIZERS["adamw"](), layer, batch_size=256).defaults["betas"] == (0.9, 0.999)
    with pytest.raises(TrainerError, match=r"optimizer\.betas takes two numbers, \[0\.9, 0\.999\]; got \[0\.9\]\."):
        build_optimizer(OPTIMIZERS["adamw"](betas=[0.9]), layer, batch_size=256)


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


def rates_of(settings, module, steps, constant=()):
    """The rates of all groups, step by step, and the optimizer that took them."""
    optimizer = build_optimizer(settings, module, batch_size=512, constant=constant)
    schedule = build_schedule(settings, optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return rates, optimizer


def test_the_cosine_ends_at_the_given_share_of_the_rate():
    rates, optimizer = rates_of(OPTIMIZERS["sgd"](lr=1.0, warmup=0.1, final_lr=0.01), nn.Linear(2, 2), steps=100)
    assert max(rates) == [2.0, 2.0]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.02])


def test_a_constant_rate_neither_warms_up_nor_falls_and_survives_a_resume():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    settings = OPTIMIZERS["sgd"](lr=0.5, warmup=0.5)
    rates, optimizer = rates_of(settings, module, steps=4, constant=[module[1]])
    assert [step[2:] for step in rates] == [[1.0, 1.0]] * 4
    assert [step[0] for step in rates] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [settings.weight_decay, 0.0] * 2
    names = [{id(p): name for name, p in module.named_parameters()}[id(g["params"][0])] for g in optimizer.param_groups]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    fresh = build_optimizer(settings, module, batch_size=512, constant=[module[1]])
    schedule = build_schedule(settings, fresh, steps=4)
    fresh.load_state_dict(optimizer.state_dict())
    fresh.step()
    schedule.step()
    assert [group["lr"] for group in fresh.param_groups][2:] == [1.0, 1.0]


def test_norms_and_biases_can_have_a_rate_of_their_own():
    rates, _ = rates_of(OPTIMIZERS["lars"](lr=0.2, norm_lr=0.0048, warmup=0.0), nn.Linear(2, 2), steps=3)
    assert rates[0] == pytest.approx([0.4, 0.0096])
    assert [step[1] / step[0] for step in rates] == pytest.approx([0.024] * 3)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_decay_where_that_is_asked_for(name):
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    settings = OPTIMIZERS[name](weight_decay=0.1, final_weight_decay=0.2, decay_norms=True)
    optimizer = build_optimizer(settings, module, batch_size=256)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert all(group["decays"] for group in optimizer.param_groups)
    schedule = build_schedule(settings, optimizer, steps=1)
    optimizer.step()
    schedule.step()
    assert [group["weight_decay"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_a_schedule(steps):
    settings = OPTIMIZERS["sgd"]()
    optimizer = build_optimizer(settings, nn.Linear(2, 2), batch_size=256)
    schedule = build_schedule(settings, optimizer, steps)
    for _ in range(steps):
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("scaling", "factor"), [("linear", 4.0), ("sqrt", 2.0), ("none", 1.0)])
def test_the_rule_by_which_the_rate_scales(scaling, factor):
    settings = OPTIMIZERS["sgd"](lr=0.1, scaling=scaling)
    assert build_optimizer(settings, nn.Linear(2, 2), batch_size=1024).param_groups[0]["lr"] == pytest.approx(
        0.1 * factor
    )


def weights_and_gradients():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(3, 4, generator=generator), torch.zeros(2, 2), torch.randn(5, 2, generator=generator)]
    gradients = [torch.randn(w.shape, generator=generator) for w in weights[:2]] + [torch.zeros(5, 2)]
    return weights, gradients


@pytest.mark.parametrize("decay", [0.1, 1e-6])
def test_lars_is_lightlys_lars(decay):
    ours, theirs = ([nn.Parameter(w.clone()) for w in weights_and_gradients()[0]] for _ in range(2))
    optimizers = [
        LARS(ours, lr=0.5, momentum=0.9, weight_decay=decay, trust=0.02),
        LightlyLARS(theirs, lr=0.5, momentum=0.9, weight_decay=decay, trust_coefficient=0.02),
    ]
    for _ in range(3):
        for parameters, optimizer in zip((ours, theirs), optimizers, strict=True):
            for parameter, gradient in zip(parameters, weights_and_gradients()[1], strict=True):
                parameter.grad = gradient.clone()
            optimizer.step()
    # Lightly leaves out the decay of a weight without a gradient; ours decays it as SGD does.
    for mine, other in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine, other)


def test_clipped_lars_never_goes_further_than_sgd():
    (weight, *_), (gradient, *_) = weights_and_gradients()
    for scale, expected in ((1e-3, 1.0), (1e3, 0.02 * weight.norm().item() / (1e3 * gradient.norm().item()) / 0.5)):
        parameter = nn.Parameter(weight.clone())
        optimizer = LARS([parameter], lr=0.5, momentum=0.0, trust=0.02, clip=True)
        parameter.grad = scale * gradient
        optimizer.step()
        torch.testing.assert_close(weight - parameter.detach(), 0.5 * expected * scale * gradient, rtol=1e-4, atol=1e-7)


def test_norms_and_biases_take_plain_steps_under_lars():
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = build_optimizer(OPTIMIZERS["lars"](lr=0.5), module, batch_size=256)
    before = module[1].weight.detach().clone()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    torch.testing.assert_close(before - module[1].weight.detach(), torch.full((3,), 0.5))


def test_the_decay_follows_its_own_cosine_and_survives_a_resume():
    settings = OPTIMIZERS["adamw"](weight_decay=0.04, final_weight_decay=0.4)
    optimizer = build_optimizer(settings, nn.Linear(2, 2), batch_size=256)
    schedule = build_schedule(settings, optimizer, steps=10)
    decays = []
    for _ in range(10):
        decays.append([group["weight_decay"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert decays == [[half_cosine(i / 10, 0.04, 0.4), 0.0] for i in range(10)]
    assert decays[0][0] == pytest.approx(0.04)
    assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.4)
    fresh = build_optimizer(settings, nn.Linear(2, 2), batch_size=256)
    build_schedule(settings, fresh, steps=10)
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.param_groups[0]["weight_decay"] == pytest.approx(0.4)
