"""The tables of numbers that kernels read are made beside the weights, whatever the default device is."""

import pytest
import torch
from matrices import cpu_kernels

from ortho_kernels.backends.triton import operators as kernels

# Of this file alone, so that no table for them was made under another default device.
SHAPES = [(13, 41), (43, 9), (5, 3, 3, 3)]
SIDES = [0, 1, 0]


def soft_orthogonality(weights):
    values, residuals = kernels.soft_orthogonality(weights, [1] * 3, SIDES, 1.0, 0.5, True)
    return values, residuals, kernels.soft_orthogonality_backward, (residuals, 0)


def srip(weights):
    orders = [13, 9, 5]
    start = torch.linspace(-1, 2, sum(orders), device=weights[0].device)
    values, vectors = kernels.srip(weights, [1] * 3, SIDES, start, 2, True, True)
    return values, vectors, kernels.srip_backward, (vectors, 2)


def computed(penalty):
    torch.manual_seed(0)
    weights = [torch.randn(shape, device="cpu") / 4 for shape in SHAPES]
    values, kept, backward, arguments = penalty(weights)
    return [values, kept, *cpu_kernels.gradients(backward, torch.ones(3, device="cpu"), weights, [1] * 3, SIDES,
                                                 *arguments, [1, 1, 1])]  # fmt: skip


@pytest.mark.parametrize("penalty", [soft_orthogonality, srip])
def test_the_default_device_changes_nothing(penalty):
    with torch.device("meta"):
        found = computed(penalty)
    for own, other in zip(found, computed(penalty), strict=True):
        assert own.device.type == "cpu"
        assert torch.equal(own, other)
