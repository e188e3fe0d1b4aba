"""A default device that the weights are not on changes nothing: tensors of numbers are made where they are read."""

import pytest
import torch
from torch import nn

from ortho_kernels import (
    OrthogonalityPenalty,
    compat,
    convolution_orthogonality,
    low_rank_soft_orthogonality,
    reference,
    soft_orthogonality,
    soft_orthogonality_value_and_grad,
    srip,
    srip_value_and_grad,
)

# Of this file alone, so that no view of them was cached under another default device.
SHAPES = [(11, 3, 3, 3), (11, 29), (31, 7), (6, 2, 5, 5)]


def as_model(weights):
    model = nn.Module()
    for index, weight in enumerate(weights):
        layer = nn.Linear(1, 1, device="cpu") if weight.dim() == 2 else nn.Conv2d(1, 1, 1, device="cpu")
        layer.weight = nn.Parameter(weight.detach())
        model.add_module(f"layer{index}", layer)
    return model


def penalty_of_a_module(**options):
    """Two steps: what the second reads was made by the first, or before it."""

    def compute(weights):
        model = as_model(weights)
        penalty = OrthogonalityPenalty(model, **options)
        value = penalty() + 2 * penalty()
        return value, torch.autograd.grad(value, [layer.weight for layer in model.children()])

    return compute


def step(penalty, **options):
    def compute(weights):
        value = penalty(weights, **options)
        return value, torch.autograd.grad(value, weights)

    return compute


def seeded(penalty, **options):
    return lambda weights: step(penalty, generator=torch.Generator("cpu").manual_seed(3), **options)(weights)


def by_hand(penalty, **options):
    return lambda weights: penalty([weight.detach() for weight in weights], **options)


def extremes(weights):
    start = [w.detach().new_ones(len(w), 2) + torch.tensor([0.0, 0.5], device=w.device) for w in weights[:1]]
    return step(lambda kernels: compat.svmo(kernels[0], start=start[0]).sum())(weights[:1])


def lora(weights):
    return step(lambda pair: low_rank_soft_orthogonality([(pair[0], pair[1])], scale=0.5))(
        [weights[2], weights[2].detach().T.contiguous().requires_grad_()]
    )


COMPUTATIONS = {
    "so": step(soft_orthogonality),
    "so, mean over entries": step(soft_orthogonality, reduction="entries"),
    "so, groups": lambda weights: step(soft_orthogonality, groups=2)(weights[3:]),
    "so, max": step(soft_orthogonality, norm="max"),
    "so, cosines": step(soft_orthogonality, normalize="rows", off_diagonal=0.5),
    "so, against": lambda weights: step(lambda own: soft_orthogonality(own, against=own))(weights[:3]),
    "so, no graph": by_hand(soft_orthogonality_value_and_grad, scale=0.5),
    "srip": seeded(srip),
    "srip, detached": seeded(srip, gradient="envelope", reduction="mean"),
    "srip, no graph": lambda weights: by_hand(
        srip_value_and_grad, generator=torch.Generator("cpu").manual_seed(3)
    )(weights),
    "convolutions": step(convolution_orthogonality),
    "extreme eigenvalues": extremes,
    "low rank": lora,
    "class, so": penalty_of_a_module(gamma={"layer0": 1e-3, "*": 1e-4}),
    "class, so, mean": penalty_of_a_module(gamma=0.1, reduction="mean"),
    "class, srip": penalty_of_a_module(kind="srip", gamma=0.1),
    "class, srip, warm start": penalty_of_a_module(kind="srip", gamma=0.1, warm_start=True),
}  # fmt: skip


def weights():
    torch.manual_seed(0)
    return [(torch.randn(shape) / 4).requires_grad_() for shape in SHAPES]


@pytest.mark.parametrize("name", COMPUTATIONS)
def test_the_default_device_changes_nothing(backend, name):
    made = weights(), weights()
    with torch.device("meta"):
        value, gradients = COMPUTATIONS[name](made[0])
    expected, expected_gradients = COMPUTATIONS[name](made[1])
    assert value.device == made[0][0].device
    assert torch.equal(value, expected)
    assert value != 0
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        assert torch.equal(gradient, other)


@pytest.mark.parametrize("formula", ["paper_so", "paper_srip", "paper_ocnn"])
def test_nor_the_formulas(formula):
    first = weights()[0].double()
    arguments = {
        "paper_so": [first.flatten(1)],
        "paper_srip": [first.flatten(1), torch.ones(len(first), dtype=torch.float64)],
        "paper_ocnn": [first],
    }[formula]
    with torch.device("meta"):
        value = getattr(reference, formula)(*arguments)
    assert torch.equal(value, getattr(reference, formula)(*arguments))


def test_nor_what_reports_measure(backend):
    model = as_model(weights())
    with torch.device("meta"):
        report = str(OrthogonalityPenalty(model, gamma=0.1).report())
    assert report == str(OrthogonalityPenalty(model, gamma=0.1).report())
