"""Near orthogonality (W = Q + 1e-3 noise), where R is a difference of nearly equal numbers: the digits that are left.

Values are judged one by one, not by their sum, in which errors would cancel.
"""

import pytest
import torch

import ortho_kernels
from ortho_kernels import reference, use_backend

from .results import Results
from .weight_sets import weights_of

PENALTIES = {
    "so": (ortho_kernels.soft_orthogonality, reference.soft_orthogonality),
    "srip": (ortho_kernels.srip, reference.srip),
}


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "vit_small"])
@pytest.mark.parametrize("penalty", PENALTIES)
def test_near_orthogonality(benchmark, request, penalty, model):
    compute, define = PENALTIES[penalty]
    weights = near_orthogonal(weights_of(model))
    options = {}
    if penalty == "srip":
        options["start"] = [torch.randn(1, min(len(weight), weight[0].numel())) for weight in weights]
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    true_values = define(doubles, reduction="none", **options)
    true_gradients = torch.autograd.grad(true_values.sum(), doubles)
    worst = {}
    for backend in ("torch", "cpu"):
        with use_backend(backend):
            values = compute(weights, reduction="none", **options)
            gradients = torch.autograd.grad(values.sum(), weights)
        pairs = zip(gradients, true_gradients, strict=True)
        worst[backend] = (
            (values / true_values - 1).abs().max().item(),
            max(((given - true).norm() / true.norm()).item() for given, true in pairs),
        )
    benchmark.extra_info.update(worst)
    words = "; ".join(f"{name}: values {value:.1e}, gradients {grad:.1e}" for name, (value, grad) in worst.items())
    request.config.stash[Results.key].notes.append(f"near orthogonality, {penalty} {model}, worst layer: {words}")
    assert max(worst["cpu"]) < 1e-5
    benchmark.pedantic(lambda: compute(weights, **options), rounds=3)


def near_orthogonal(weights):
    """The same shapes, orthogonal but for noise of 1e-3 an entry."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for weight in weights:
        orthogonal = torch.nn.init.orthogonal_(torch.empty_like(weight), generator=generator)
        noise = torch.randn(weight.shape, generator=generator)
        result.append((orthogonal + 1e-3 * noise).requires_grad_())
    return result
