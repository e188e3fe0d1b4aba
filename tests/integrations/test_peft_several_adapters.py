"""Of several adapters in PEFT, the penalty is that of those in training, whichever `set_adapter` chose last."""

import logging

import peft
import pytest
import torch
from test_peft import ALPHA, RANK, adapted
from truth import residual

from ortho_kernels import LoraPenalty, OrthogonalityPenalty

SMALL = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "up_proj"]}


def both():
    """Llama with two adapters, of which the first is in training."""
    model = adapted()
    model.add_adapter("other", peft.LoraConfig(**SMALL))
    for name, parameter in model.named_parameters():
        if "lora_B.other" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def of(model, adapter):
    return {name: weight for name, weight in model.named_parameters() if f".{adapter}.weight" in name}


def of_factors(weights):
    return sum(residual(weight, "small").square().sum() for weight in weights.values())


def of_products(weights):
    pairs = [(weights[name.replace("lora_A", "lora_B")], A) for name, A in weights.items() if "lora_A" in name]
    products = [ALPHA / RANK * B @ A for B, A in pairs]
    return sum(residual(M, "small").square().sum() - (min(M.shape) - RANK) for M in products)


PENALTIES = {
    "factors": (lambda model: OrthogonalityPenalty(model, lora="factors", gamma=0.5), of_factors),
    "products": (lambda model: LoraPenalty(model, gamma=0.5), of_products),
}


def check(model, penalty, written, adapter, others):
    """Value and gradients are those of one adapter's formula; no other weight gets any."""
    model.zero_grad()
    value = penalty.accumulate_gradients()
    weights = of(model, adapter)
    truth = 0.5 * written(weights)
    torch.testing.assert_close(value, truth.detach(), rtol=1e-5, atol=0)
    for weight, gradient in zip(weights.values(), torch.autograd.grad(truth, list(weights.values())), strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-5 * gradient.abs().max().item())
    assert all(weight.grad is None for weight in of(model, others).values())


@pytest.mark.parametrize("case", PENALTIES)
def test_the_adapter_in_training_is_penalized(case):
    make, written = PENALTIES[case]
    model = both()
    penalty = make(model)
    for adapter, others in (("default", "other"), ("other", "default"), ("default", "other")):
        model.set_adapter(adapter)
        check(model, penalty, written, adapter, others)
        assert {name.split(".")[-2] for name in penalty.names} == {adapter}


@pytest.mark.parametrize("case", PENALTIES)
def test_a_disabled_adapter_is_measured_and_gets_no_gradient(case):
    make, written = PENALTIES[case]
    model = both()
    penalty = make(model)
    with model.disable_adapter():
        value = penalty.accumulate_gradients()
        assert all(weight.grad is None for weight in model.parameters())
    torch.testing.assert_close(value, 0.5 * written(of(model, "default")).detach(), rtol=1e-5, atol=0)
    check(model, penalty, written, "default", "other")


@pytest.mark.parametrize("narrowed", [{"include": "*.default.*"}, {"exclude": "*.default.*"}])
def test_what_was_left_out_stays_out(narrowed, caplog):
    """A penalty of one adapter rests while the other is in training."""
    model = both()
    chosen, other = ("default", "other") if "include" in narrowed else ("other", "default")
    model.set_adapter(chosen)
    penalty = OrthogonalityPenalty(model, lora="factors", gamma=0.5, **narrowed)
    model.set_adapter(other)
    with caplog.at_level(logging.WARNING):
        value = penalty.accumulate_gradients()
    torch.testing.assert_close(value, 0.5 * of_factors(of(model, chosen)).detach(), rtol=1e-5, atol=0)
    assert all(weight.grad is None for weight in model.parameters())
    assert not caplog.records
    model.set_adapter(chosen)
    check(model, penalty, of_factors, chosen, other)


def test_the_vectors_of_an_adapter_begin_when_it_does():
    """SRIP's vectors of the new adapter are those of a penalty made for it, at the step that has been reached."""
    model = both()
    penalty = OrthogonalityPenalty(model, "srip", lora="factors", gamma=0.5)
    for _ in range(3):
        penalty()
    model.set_adapter("other")
    fresh = OrthogonalityPenalty(model, "srip", lora="factors", gamma=0.5)
    for _ in range(3):
        fresh()
    assert torch.equal(penalty(), fresh())
    assert penalty.names == fresh.names
