"""Weights that hold their numbers in other tensors: DTensors are gathered or refused, all else is refused."""

import pytest
import torch
import torch.distributed as dist
from ranks import on_ranks
from torch import nn

from ortho_kernels import soft_orthogonality, soft_orthogonality_value_and_grad, srip, srip_value_and_grad, use_backend
from ortho_kernels.compat import l2_reg_ortho, orth_dist

FULL = [torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
START = [torch.ones(1, 4)] * 2
GATHERING = {
    "soft_orthogonality": soft_orthogonality,
    "soft_orthogonality, larger side": lambda weights: soft_orthogonality(weights, side="rows"),
    "srip": lambda weights: srip(weights, start=START),
    "srip, generator": lambda weights: srip(weights, generator=torch.Generator().manual_seed(0)),
    "orth_dist": lambda weights: sum(map(orth_dist, weights)),
}
BACKENDS = ("cpu", "torch")


def sharded():
    """Each process holds some rows of the first weight and some columns of the second."""
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    return [distribute_tensor(w, mesh, [Shard(dim)]).requires_grad_() for dim, w in enumerate(FULL)]


def values_and_gradients_of_the_full_weights(rank):
    for backend in BACKENDS:
        for name, penalty in GATHERING.items():
            with use_backend(backend):
                plain, parts = [w.clone().requires_grad_() for w in FULL], sharded()
                # Plain weights of the same shapes first: what is kept for them must not serve the others.
                truth, value = penalty(plain), penalty(parts)
                assert type(value) is torch.Tensor, (backend, name)
                torch.testing.assert_close(value, truth)
                truth.backward()
                value.backward()
                for part, leaf in zip(parts, plain, strict=True):
                    assert part.grad.placements == part.placements
                    torch.testing.assert_close(part.grad.full_tensor(), leaf.grad)


def test_sharded_weights_are_gathered(tmp_path):
    on_ranks(2, tmp_path, values_and_gradients_of_the_full_weights)


def words_for_sharded_weights(rank):
    parts = sharded()
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(4, 6))
    for layer, part in zip(model, parts, strict=True):
        layer.weight = nn.Parameter(part.detach())
    for backend in BACKENDS:
        for call, name in [
            (lambda: srip([FULL[0], parts[1]]), "weights[1]"),
            (lambda: srip_value_and_grad([FULL[0], parts[1]]), "weights[1]"),
            (lambda: srip_value_and_grad(parts, start=START), "weights[0]"),
            (lambda: soft_orthogonality_value_and_grad(parts), "weights[0]"),
            (lambda: l2_reg_ortho(model), "0.weight"),
        ]:
            with use_backend(backend):
                srip(FULL)  # what is kept for plain weights must not serve the others
                state = torch.get_rng_state()
                with pytest.raises(
                    ValueError, match=r"is a DTensor.*use OrthogonalityPenalty.*start vectors on every rank"
                ) as error:
                    call()
                assert str(error.value).startswith(name)
                assert torch.equal(state, torch.get_rng_state())
        with pytest.raises(TypeError, match=r"start\[0\] must be a plain floating-point tensor.*got DTensor"):
            srip([FULL[0].T], start=[parts[0][:1].detach()])
        with pytest.raises(TypeError, match=r"accumulate_into\[0\] is a DTensor"):
            soft_orthogonality_value_and_grad(FULL[:1], accumulate_into=[parts[0].detach()])
    with pytest.raises(ValueError, match=r"weights\[0\] is a DTensor.*use OrthogonalityPenalty"):
        torch.compile(srip, backend="eager")(parts)


def test_sharded_weights_are_refused_where_ranks_would_differ(tmp_path):
    on_ranks(1, tmp_path, words_for_sharded_weights)


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip, soft_orthogonality_value_and_grad, srip_value_and_grad])
def test_quantized_weights(backend, penalty):
    quantization = pytest.importorskip("torchao.quantization")
    layer = nn.Linear(6, 4)
    weights = [layer.weight, layer.weight]
    penalty(weights)
    quantization.quantize_(layer, quantization.Int8WeightOnlyConfig())
    name = type(layer.weight).__name__
    with pytest.raises(TypeError, match=rf"weights\[1\] is a {name}, which wraps other tensors.*dequantize"):
        penalty([weights[0], layer.weight])


class Wrapper(torch.Tensor):
    """As plain as a wrapper can be: its shape, strides, dtype and device are those of what it holds."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, strides=held.stride(), dtype=held.dtype)

    def __init__(self, held):
        self.held = held

    def __tensor_flatten__(self):
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(held, *_):
        return Wrapper(held["held"])

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise AssertionError(f"{function} was called")


class NamedWeight(torch.Tensor):
    """A subclass that holds its numbers itself."""


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip, soft_orthogonality_value_and_grad, srip_value_and_grad])
def test_wrappers_are_refused_after_plain_weights_that_look_the_same(backend, penalty):
    weight = torch.randn(4, 6)
    penalty([weight])
    with pytest.raises(TypeError, match=r"weights\[0\] is a Wrapper, which wraps other tensors"):
        penalty([Wrapper(weight)])
    with pytest.raises(TypeError, match=r"accumulate_into\[0\] is a Wrapper"):
        soft_orthogonality_value_and_grad([weight], accumulate_into=[Wrapper(weight)])


def test_other_subclasses_are_read(backend):
    weight = torch.randn(4, 6)
    assert soft_orthogonality([weight.as_subclass(NamedWeight)]) == soft_orthogonality([weight])
