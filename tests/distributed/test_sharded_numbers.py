"""Dtypes, NaN, Inf and weights without entries, sharded: what one process computes of them."""

import math

import pytest
import torch
from ranks import on_ranks

from ortho_kernels import soft_orthogonality, srip
from ortho_kernels.distributed.sharded import partition

DTYPES = {
    "float16": (torch.float16,) * 3,
    "bfloat16": (torch.bfloat16,) * 3,
    "two of two bytes": (torch.float16, torch.bfloat16, torch.float16),
    "half in float32": (torch.float32, torch.bfloat16, torch.float16),
    "all": (torch.float32, torch.float64, torch.bfloat16),
}
SHAPES = [(6, 9), (12, 9), (9, 9)]
EMPTY = [(0, 5), (5, 0), (6, 9), (1, 0)]


def made(shapes, dtypes):
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(shape, generator=generator) / 3).to(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def extreme():
    """R = 0, R = -I, and large numbers."""
    large = [scale * weight for scale, weight in zip((1e3, 1e6), made(SHAPES[:2], [torch.float32] * 2), strict=True)]
    return [torch.eye(6, 9), torch.eye(9), torch.zeros(6, 9), torch.zeros(9, 4), *large]


def broken(number):
    """Three equal matrices, of which the second holds a NaN or an Inf."""
    weights = [weight.clone() for weight in made([(6, 9)], [torch.float32]) * 3]
    weights[1][0, 0] = number
    return weights


def computed(weights):
    """Values and gradients, each value times another factor."""
    found = {}
    for kind in ("so", "srip"):
        leaves = [weight.detach().requires_grad_() for weight in weights]
        start = [torch.linspace(1, 2, min(leaf.shape))[None] for leaf in leaves]
        values = (
            soft_orthogonality(leaves, reduction="none")
            if kind == "so"
            else srip(leaves, start=start, reduction="none")
        )
        (values * torch.linspace(1, 1.3, len(values), dtype=values.dtype)).sum().backward()
        found[kind] = (
            values.detach(),
            [getattr(leaf.grad, "full_tensor", lambda own=leaf: own.grad)() for leaf in leaves],
        )
    return found


def sharded(rank, count):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh, found = init_device_mesh("cpu", (count,)), {}

    def placed(weights, plain=()):
        return [
            weight if index in plain else distribute_tensor(weight, mesh, [Shard(0)])
            for index, weight in enumerate(weights)
        ]

    for overload in (partition.OVERLOAD, 0.0):
        partition.OVERLOAD = overload
        for name, dtypes in DTYPES.items():
            found[name, overload, "sharded"] = computed(placed(made(SHAPES, dtypes)))
            found[name, overload, "one plain"] = computed(placed(made(SHAPES, dtypes), plain=[0]))
        found["empty", overload] = computed(placed(made(EMPTY, [torch.float32] * 4)))
        found["extreme", overload] = computed(placed(extreme()))
        for number in (math.nan, math.inf):
            found[str(number), overload] = computed(placed(broken(number)))
        partition.OVERLOAD = 0.0
    found["nothing"] = soft_orthogonality(placed(made(EMPTY[:2], [torch.float32] * 2)), reduction="none")
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(3, tmp_path_factory.mktemp("ranks"), sharded, 3)


def test_dtypes(ranks):
    """Gradients against float64: twice one process's own error at most."""
    for name, dtypes in DTYPES.items():
        weights = made(SHAPES, dtypes)
        alone, truth = computed(weights), computed([weight.double() for weight in weights])
        for found in ranks:
            for case, each in found.items():
                if case[0] != name:
                    continue
                for kind, (_, gradients) in truth.items():
                    torch.testing.assert_close(each[kind][0], alone[kind][0], rtol=1e-5, atol=1e-6)
                    for index, gradient in enumerate(gradients):
                        ours, theirs = each[kind][1][index], alone[kind][1][index]
                        assert ours.dtype == theirs.dtype == dtypes[index]
                        off, least = ((own.double() - gradient).norm() / gradient.norm() for own in (ours, theirs))
                        assert off <= max(2 * least, 1e-6), f"{case}, {kind}, {index}: {off:.1e}, alone {least:.1e}"


def test_weights_without_entries(ranks):
    alone = computed(made(EMPTY, [torch.float32] * 4))
    for found in ranks:
        assert found["nothing"].tolist() == [0, 0]
        for case, each in found.items():
            if case[0] == "empty":
                torch.testing.assert_close(each, alone, rtol=1e-5, atol=1e-6)


def test_no_residual_and_large_numbers(ranks):
    alone = computed(extreme())
    for kind in alone:
        assert alone[kind][0][:2].tolist() == [0, 0]
    for found in ranks:
        for case, each in found.items():
            if case[0] != "extreme":
                continue
            for kind, (values, gradients) in alone.items():
                torch.testing.assert_close(each[kind][0], values, rtol=1e-5, atol=1e-6)
                for ours, theirs in zip(each[kind][1], gradients, strict=True):
                    assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), f"{case}, {kind}, {tuple(theirs.shape)}"


def test_nan_and_inf_stay_in_their_matrix(ranks):
    for number in (math.nan, math.inf):
        alone = computed(broken(number))
        for found in ranks:
            for case, each in found.items():
                if case[0] != str(number):
                    continue
                for kind, (values, gradients) in each.items():
                    torch.testing.assert_close(values, alone[kind][0], rtol=1e-5, atol=1e-6, equal_nan=True)
                    assert not gradients[1].isfinite().all()
                    for index in (0, 2):
                        torch.testing.assert_close(gradients[index], alone[kind][1][index], rtol=1e-5, atol=1e-6)
