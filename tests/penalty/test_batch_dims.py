"""`batch_dims` of the class: parameters that hold a batch of matrices, by the patterns of their names."""

import copy

import pytest
import torch
from torch import nn
from truth import so_from_spectrum, so_gradient

from ortho_kernels import OrthogonalityPenalty


class Mixture(nn.Module):
    """Somebody's own experts: a bare batch, its gate of two dimensions, and a convolution."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, 6, 4, dtype=torch.float64))
        self.gate = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
        self.conv = nn.Conv1d(4, 6, 3, groups=2, dtype=torch.float64)


def test_a_batch_is_added_as_its_matrices():
    model = Mixture()
    penalty = OrthogonalityPenalty(model, gamma=2.0, batch_dims={"experts": 1}, exclude="conv")
    assert penalty.names == ("experts",)
    [(_, weight, count)] = penalty.weights()
    assert (tuple(weight.shape), count) == ((18, 4), 3)
    truth = 2 * sum(so_from_spectrum(matrix.detach()) for matrix in model.experts)
    value = penalty()
    torch.testing.assert_close(value.detach(), truth)
    gradient = 2 * torch.stack([so_gradient(matrix) for matrix in model.experts.detach()])
    torch.testing.assert_close(torch.autograd.grad(value, model.experts)[0], gradient)
    torch.testing.assert_close(penalty.accumulate_gradients(), truth)
    torch.testing.assert_close(model.experts.grad, gradient)
    assert "3 x (6 x 4)" in str(penalty.report())


def test_gradients_are_added_where_memory_lies_otherwise():
    model = Mixture()
    model.experts.data = torch.randn(4, 6, 3, dtype=torch.float64).permute(2, 1, 0)
    penalty = OrthogonalityPenalty(model, gamma=1.0, batch_dims={"experts": 1}, exclude="conv")
    truth = torch.stack([so_gradient(matrix) for matrix in model.experts.detach()])
    penalty.accumulate_gradients()
    torch.testing.assert_close(model.experts.grad, truth)
    model.experts.data = model.experts.data.contiguous()  # and its gradient is not
    penalty.accumulate_gradients()
    torch.testing.assert_close(model.experts.grad, 2 * truth)


@pytest.mark.parametrize("options", [{"seed": 3}, {"warm_start": True}])
def test_srip_starts_from_a_vector_a_matrix(options):
    penalty = OrthogonalityPenalty(Mixture(), "srip", batch_dims={"experts": 1}, exclude="conv", **options)
    for _ in range(30):
        value = penalty()
    if options.get("warm_start"):
        truth = sum(
            (torch.linalg.svdvals(matrix).square() - 1).abs().max() for matrix in penalty.encoder.experts.detach()
        )
        torch.testing.assert_close(value.detach(), 1e-3 * truth, rtol=1e-4, atol=0)
    again = copy.deepcopy(penalty)
    again.load_state_dict(penalty.state_dict())
    assert torch.equal(again(), penalty())


def test_it_is_compiled_whole():
    penalty = OrthogonalityPenalty(Mixture(), gamma=1.0, batch_dims={"experts": 1})
    compiled = torch.compile(lambda: 2 * penalty(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), 2 * penalty())


def test_the_first_pattern_counts_and_zero_leaves_a_weight_as_it_was():
    penalty = OrthogonalityPenalty(Mixture(), batch_dims={"gate": 0, "conv": 0, "*": 1})
    assert penalty.names == ("experts", "conv.weight")
    assert OrthogonalityPenalty(Mixture(), batch_dims={"experts": 0}).names == ("conv.weight",)


def test_include_and_exclude_narrow_it():
    batch = {"batch_dims": {"experts": 1}}
    assert OrthogonalityPenalty(Mixture(), include="conv", **batch).names == ("experts", "conv.weight")
    assert OrthogonalityPenalty(Mixture(), include="experts", **batch).names == ("experts",)
    assert OrthogonalityPenalty(Mixture(), exclude="experts", **batch).names == ("conv.weight",)


def test_without_it_the_reason_says_how():
    penalty = OrthogonalityPenalty(Mixture())
    assert penalty.uncovered["experts"] == (
        "Mixture parameter of 3 dimensions; if it is a batch of matrices, `batch_dims` adds it"
    )


@pytest.mark.parametrize(
    ("batch_dims", "error", "words"),
    [
        ({"conv": 1}, ValueError, "pattern 'conv' matches conv.weight, a convolution's weight, which is no batch"),
        (
            {"expert": 1},
            ValueError,
            "batch_dims pattern 'expert' matches none of the weights: experts, gate, conv.weight",
        ),
        ({"experts": 2}, ValueError, r"experts has shape \(3, 6, 4\), of which batch_dims=2 leaves 1"),
        ({"*": 1}, ValueError, r"gate has shape \(3, 4\), of which batch_dims=1 leaves 1"),
        (
            {"expert*": 1, "experts": 0},
            ValueError,
            "batch_dims pattern 'experts' never counts: patterns before",
        ),
        ({"experts": -1}, ValueError, "batch_dims has -1 for 'experts'; expected an int, 0 or more"),
        ({"experts": True}, ValueError, "batch_dims has True for 'experts'"),
        (1, TypeError, "batch_dims must be numbers of dimensions by patterns of names; got 1"),
    ],
)
def test_what_is_no_batch_is_refused(batch_dims, error, words):
    with pytest.raises(error, match=words):
        OrthogonalityPenalty(Mixture(), batch_dims=batch_dims)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match=r"T has shape \(0, 3, 4\): its batch is empty"):
        OrthogonalityPenalty({"T": torch.zeros(0, 3, 4)}, batch_dims={"T": 1})
