"""torch.func.vmap over the kernels says what to do instead; the torch backend goes through it."""

import re

import pytest
import torch
from torch.func import grad, jacrev, vmap
from truth import relative, so_from_spectrum, so_gradient

from ortho_kernels import soft_orthogonality, soft_orthogonality_value_and_grad, srip, srip_value_and_grad, use_backend

GROUPED = r'soft_orthogonality([batch.reshape(b * out, in)], groups=b, reduction="none")'
START = [torch.ones(1, 4)]
PENALTIES = {
    "soft_orthogonality": lambda W: soft_orthogonality([W]),
    "srip": lambda W: srip([W]),
    "srip from start": lambda W: srip([W], start=START),
}
CALLS = {
    "vmap": lambda penalty, batch: vmap(penalty)(batch),
    "vmap of leaves": lambda penalty, batch: vmap(penalty)(batch.clone().requires_grad_()),
    "vmap of grad": lambda penalty, batch: vmap(grad(penalty))(batch),
    "grad of vmap": lambda penalty, batch: grad(lambda Ws: vmap(penalty)(Ws).sum())(batch),
    "vmap of vmap": lambda penalty, batch: vmap(vmap(penalty))(batch[None]),
}


@pytest.fixture
def batch():
    return torch.randn(3, 4, 6)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("call", CALLS)
def test_vmap_over_the_kernels_says_what_to_do(kernels, batch, penalty, call):
    with pytest.raises(RuntimeError, match=rf"{re.escape(GROUPED)}.*use_backend\('torch'\)"):
        CALLS[call](PENALTIES[penalty], batch)


def test_what_it_says_to_do(kernels, batch):
    truth = torch.stack([so_from_spectrum(W) for W in batch.double()])
    grouped = soft_orthogonality([batch.reshape(3 * 4, 6)], groups=3, reduction="none")
    listed = soft_orthogonality(list(batch), reduction="none")
    with use_backend("torch"):
        mapped = vmap(PENALTIES["soft_orthogonality"])(batch)
        gradients = vmap(grad(PENALTIES["soft_orthogonality"]))(batch)
    for values in (grouped, listed, mapped):
        assert relative(values, truth) < 1e-5
    assert relative(gradients, torch.stack([so_gradient(W) for W in batch.double()])) < 1e-5


@pytest.mark.parametrize("fused", [soft_orthogonality_value_and_grad, srip_value_and_grad])
def test_vmap_of_value_and_grad(kernels, batch, fused):
    with pytest.raises(RuntimeError, match=re.escape(GROUPED)):
        vmap(lambda W: fused([W])[0])(batch)


@pytest.mark.parametrize("name", ["soft_orthogonality", "srip from start"])
def test_batched_gradients(kernels, batch, name):
    """jacrev and is_grads_batched are vmap over the backward."""
    leaf = batch[0].clone().requires_grad_()
    with pytest.raises(RuntimeError, match=r"vmap can't.*use_backend\('torch'\)"):
        jacrev(PENALTIES[name])(leaf.detach())
    with pytest.raises(RuntimeError, match=r"vmap can't.*use_backend\('torch'\)"):
        torch.autograd.grad(PENALTIES[name](leaf), leaf, torch.ones(2), is_grads_batched=True)


def test_weights_without_a_batch_dimension(kernels, batch):
    """They are what they were, beside others that have one."""
    value = vmap(lambda x: x * srip([batch[0]], start=START))(torch.ones(2))
    torch.testing.assert_close(value, srip([batch[0]], start=START).expand(2))
