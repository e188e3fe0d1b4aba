"""The drop-in names against the formulas of the code that they replace, written out here in its own steps."""

import pytest
import torch
from torch import nn

from ortho_kernels.compat import compute_orth_regu, l2_reg_ortho, l2_reg_ortho_imagenet, orth_dist


def model():
    return nn.Sequential(
        nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.Linear(20, 50), nn.Embedding(7, 5), nn.Linear(50, 10)
    )


def published_sigma_squared(weight, side, start):
    """|R R v|^2 / |R v|^2 with a dense R, one layer at a time, by autograd."""
    W = weight.flatten(1)
    columns = side == "cols" or W.shape[0] > W.shape[1]
    gram = W.T @ W if columns else W @ W.T
    R = gram - torch.eye(len(gram))
    v = torch.rand(len(gram), 1) if start == "uniform" else torch.randn(len(gram), 1)
    u = R @ v
    return (R @ (u / u.norm())).norm() ** 2


@pytest.mark.parametrize(("side", "start"), [("small", "uniform"), ("cols", "normal"), ("small", "normal")])
def test_l2_reg_ortho(backend, side, start):
    net = model()
    weights = [p for p in net.parameters() if p.ndim >= 2]
    assert len(weights) == 4  # the embedding and the classifier count, the norm does not
    torch.manual_seed(3)
    truth = sum(published_sigma_squared(weight, side, start) for weight in weights)
    torch.manual_seed(3)
    value = l2_reg_ortho(net, side=side, start=start)
    torch.testing.assert_close(value, truth, rtol=1e-5, atol=0)
    for gradient, true in zip(torch.autograd.grad(value, weights), torch.autograd.grad(truth, weights), strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-4, atol=1e-5)


def test_l2_reg_ortho_imagenet_is_the_variant_of_the_larger_gram(backend):
    net = model()
    torch.manual_seed(3)
    value = l2_reg_ortho_imagenet(net)
    torch.manual_seed(3)
    assert value == l2_reg_ortho(net, side="cols", start="normal")


def test_a_reader_tells_the_variants_by_their_first_lines():
    for name, function in (("l2_reg_ortho_imagenet", l2_reg_ortho), ("l2_reg_ortho", l2_reg_ortho_imagenet)):
        first = function.__doc__.partition("\n")[0]
        assert "if rows > cols" in first
        assert "eye(cols, cols)" in first
        assert f"`{name}`" in first


def test_l2_reg_ortho_without_matrices():
    assert l2_reg_ortho(nn.BatchNorm2d(3)) is None
    assert l2_reg_ortho_imagenet(nn.BatchNorm2d(3)) is None


def test_l2_reg_ortho_rejects_unknown_starts():
    with pytest.raises(ValueError, match="start must be 'uniform' or 'normal'; got 'ones'"):
        l2_reg_ortho(model(), start="ones")


@pytest.mark.parametrize("shape", [(20, 3, 3, 3), (64, 3, 3, 3), (10, 50)])
def test_orth_dist(backend, shape):
    kernel = torch.randn(shape, requires_grad=True)
    M = kernel.flatten(1)
    M = M.T if M.shape[0] < M.shape[1] else M
    truth = torch.norm(M.T @ M - torch.eye(M.shape[1]))
    value = orth_dist(kernel)
    torch.testing.assert_close(value, truth, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(value, kernel), torch.autograd.grad(truth, kernel), rtol=1e-4, atol=1e-5
    )
    assert orth_dist(kernel, stride=2) == value


def test_orth_dist_names_its_argument():
    with pytest.raises(ValueError, match=r"mat has shape \(8,\); expected at least 2 dimensions"):
        orth_dist(torch.zeros(8))


def test_orth_dist_at_orthogonality(backend):
    kernel = torch.eye(4, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(orth_dist(kernel), kernel)
    assert not gradient.any()


def adalora(rank, dtype=torch.float32):
    """Two layers with AdaLoRA's factors, named as in PEFT, and one with another adapter's."""
    shapes = {"q": (rank, 12, 16), "v": (rank, 20, 8)}

    def layer(r, inputs, outputs, adapter="default"):
        factors = {"lora_A": torch.randn(r, inputs), "lora_E": torch.randn(r, 1), "lora_B": torch.randn(outputs, r)}
        return nn.ModuleDict({name: nn.ParameterDict({adapter: factor}) for name, factor in factors.items()})

    layers = {name: layer(*shape) for name, shape in shapes.items()}
    return nn.ModuleDict(layers | {"base": nn.Linear(3, 4), "k": layer(5, 9, 7, "other")}).to(dtype)


def published_regularization(model, weight, adapter):
    """The mean of the norms, one parameter at a time, in float64."""
    norms = []
    for name, P in model.named_parameters():
        if ("lora_A" in name or "lora_B" in name) and adapter in name:
            G = P.double() @ P.double().T if "lora_A" in name else P.double().T @ P.double()
            norms.append(torch.norm(G - torch.eye(*G.shape, dtype=torch.float64), p="fro"))
    return weight * sum(norms) / len(norms)


@pytest.mark.parametrize(("rank", "adapter"), [(4, "default"), (4, ""), (1, "default"), (14, "default")])
def test_compute_orth_regu(backend, rank, adapter):
    """Rank 14 is more than some layers have columns or rows: the Gram is r x r all the same."""
    model = adalora(rank)
    value, truth = compute_orth_regu(model, 0.5, adapter=adapter), published_regularization(model, 0.5, adapter)
    torch.testing.assert_close(value.double(), truth, rtol=1e-5, atol=0)
    factors = [p for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name]
    own, true = (torch.autograd.grad(total, factors, allow_unused=True) for total in (value, truth))
    for gradient, expected in zip(own, true, strict=True):
        if expected is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_compute_orth_regu_at_orthogonality_and_near_it(backend):
    model = adalora(4)
    with torch.no_grad():
        for factor in model.parameters():
            if factor.ndim == 2 and 1 not in factor.shape:
                nn.init.eye_(factor)
    value = compute_orth_regu(model)
    value.backward()
    assert value == 0
    assert not any(p.grad.any() for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name)
    for factor in model.parameters():
        factor.data.add_(torch.randn_like(factor), alpha=1e-3)
    truth = published_regularization(model, 0.1, "")
    torch.testing.assert_close(compute_orth_regu(model).double(), truth, rtol=1e-5, atol=0)


def test_compute_orth_regu_needs_factors():
    with pytest.raises(ValueError, match="no parameter with lora_A or lora_B, and with 'other', in its name"):
        compute_orth_regu(model(), adapter="other")
