"""The paper's formulas are the general ones with the paper's options."""

import pytest
import torch

from ortho_kernels import reference

WIDE, SQUARE, TALL = (3, 7), (5, 5), (7, 3)


@pytest.mark.parametrize("shape", [WIDE, SQUARE, TALL], ids=str)
def test_so(shape):
    W = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert_same(reference.paper_so(W), reference.soft_orthogonality([W], side="rows"), W)


@pytest.mark.parametrize("shape", [WIDE, SQUARE, TALL], ids=str)
def test_srip(shape):
    W = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    v = torch.randn(len(W), dtype=torch.float64)
    assert_same(reference.paper_srip(W, v), reference.srip([W], side="rows", start=[v[None]]), W)


def test_defaults_are_the_papers():
    """For a wide matrix the smaller Gram is the paper's."""
    W = torch.randn(WIDE, dtype=torch.float64, requires_grad=True)
    assert_same(reference.paper_so(W), reference.soft_orthogonality([W]), W)
    torch.manual_seed(1)
    srip = reference.srip([W])
    torch.manual_seed(1)
    assert_same(reference.paper_srip(W, torch.randn(len(W), dtype=torch.float64)), srip, W)


def assert_same(value, general, W):
    torch.testing.assert_close(value, general)
    [gradient], [expected] = torch.autograd.grad(value, W), torch.autograd.grad(general, W)
    torch.testing.assert_close(gradient, expected)


def test_other_weights_of_a_batch():
    """Seen as convolutions they would be 3 x 20 matrices, of one width too."""
    A, B = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    single = torch.stack([(a @ b.T).square().sum() for a, b in zip(A, B, strict=True)])
    batch = reference.soft_orthogonality([A], against=[B], batch_dims=1, reduction="none")
    torch.testing.assert_close(batch, single)
    torch.testing.assert_close(reference.soft_orthogonality([A], against=[B], batch_dims=[1]), single.sum())
