"""Batches of matrices: each equal to a loop over its matrices, in every function, on every backend and in every layout."""

from itertools import pairwise

import pytest
import torch
from truth import residual, sigma

from ortho_kernels import (
    reference,
    soft_orthogonality,
    soft_orthogonality_value_and_grad,
    srip,
    srip_value_and_grad,
)
from ortho_kernels.batches import fold_batches

DIMS = [1, 0, 2, 1, 1]
GROUPS = [1, 3, 1, 1, 1]


def weights(dtype=torch.float64):
    """A batch, a grouped convolution, batches of two dimensions, of transposed matrices, and of kernels."""
    shapes = [(3, 5, 4), (6, 2, 3, 3), (2, 3, 4, 6), (3, 4, 7), (2, 3, 2, 2)]
    Ws = [torch.randn(shape, dtype=dtype) / shape[-1] for shape in shapes]
    Ws[2], Ws[3] = Ws[2].transpose(0, 1), Ws[3].transpose(1, 2)
    return [W.requires_grad_() for W in Ws]


def single_matrices(Ws):
    """The matrices of `weights`, one by one."""
    batch, convolution, grid, transposed, kernels = Ws
    return [
        *batch,
        *(part.flatten(1) for part in convolution.chunk(3)),
        *(matrix for row in grid for matrix in row),
        *transposed,
        *(kernel.flatten(1) for kernel in kernels),
    ]


def so(W):
    return residual(W, "small").square().sum()


def given_start(Ws):
    vectors = [torch.randn(min(W.shape), dtype=torch.float64) for W in single_matrices(Ws)]
    ends = (0, 3, 6, 12, 15, 17)
    return vectors, [torch.stack(vectors[first:end]) for first, end in pairwise(ends)]


OPTIONS = {"groups": GROUPS, "batch_dims": DIMS}


def test_soft_orthogonality_is_that_of_each_matrix(backend):
    Ws = weights()
    truth = torch.stack([so(W) for W in single_matrices(Ws)])
    values = soft_orthogonality(Ws, **OPTIONS, reduction="none")
    torch.testing.assert_close(values, truth, rtol=1e-10, atol=0)
    torch.testing.assert_close(soft_orthogonality(Ws, **OPTIONS, reduction="mean"), truth.mean())
    torch.testing.assert_close(reference.soft_orthogonality(Ws, **OPTIONS, reduction="none"), truth)
    factors = torch.rand(len(truth), dtype=torch.float64)
    given, expected = (torch.autograd.grad(factors @ v, Ws) for v in (values, truth))
    for gradient, true in zip(given, expected, strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-10, atol=1e-12)


def test_srip_is_that_of_each_matrix(backend):
    Ws = weights()
    vectors, start = given_start(Ws)
    truth = torch.stack([sigma(W, x) for W, x in zip(single_matrices(Ws), vectors, strict=True)])
    values = srip(Ws, **OPTIONS, start=start, reduction="none")
    torch.testing.assert_close(values, truth, rtol=1e-8, atol=0)
    torch.testing.assert_close(reference.srip(Ws, **OPTIONS, start=start, reduction="none"), truth)
    given, expected = (torch.autograd.grad(v.sum(), Ws) for v in (values, truth))
    for gradient, true in zip(given, expected, strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("penalty", ["so", "srip"])
def test_gradients_in_one_call_have_the_shapes_of_the_weights(backend, penalty):
    Ws = weights()
    options = dict(OPTIONS)
    if penalty == "srip":
        options["start"] = given_start(Ws)[1]
    function, fused = {
        "so": (soft_orthogonality, soft_orthogonality_value_and_grad),
        "srip": (srip, srip_value_and_grad),
    }[penalty]
    value = function(Ws, **options)
    truth = torch.autograd.grad(value, Ws)
    given, gradients = fused(Ws, **options, scale=0.5)
    torch.testing.assert_close(given, value.detach())
    for gradient, true, W in zip(gradients, truth, Ws, strict=True):
        assert gradient.shape == W.shape
        torch.testing.assert_close(gradient, 0.5 * true)
    into = [torch.ones_like(W) for W in Ws]
    into[0], into[4] = torch.ones(4, 5, 3, dtype=torch.float64).permute(2, 1, 0), None  # the first can't be folded
    _, filled = fused(Ws, **options, accumulate_into=into)
    assert all(one is other for one, other in zip(filled, into, strict=True))
    for gradient, true in zip(into[:4], truth, strict=False):
        torch.testing.assert_close(gradient, 1 + true)


def test_a_tensor_that_is_listed_twice_gets_both_gradients(backend):
    T = torch.randn(3, 4, 5, dtype=torch.float64)
    [once], into = soft_orthogonality_value_and_grad([T], batch_dims=1)[1], torch.zeros_like(T)
    soft_orthogonality_value_and_grad([T, T], batch_dims=1, accumulate_into=[into, into])
    torch.testing.assert_close(into, 2 * once)


def test_three_dimensions_are_a_convolution_unless_said_otherwise():
    T = torch.randn(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(soft_orthogonality([T]), so(T.flatten(1)))
    assert "three or more dimensions is a convolution's" in soft_orthogonality.__doc__.partition("Args:")[0]


def test_a_batch_of_t_nets_is_compiled_whole():
    T = torch.randn(4, 6, 6, dtype=torch.float64, requires_grad=True)

    def twice(T):
        return 2 * soft_orthogonality([T.transpose(1, 2) / 3], batch_dims=1)

    compiled = torch.compile(twice, fullgraph=True, backend="aot_eager")(T)
    torch.testing.assert_close(compiled, 2 * sum(so(matrix.T / 3) for matrix in T))
    gradients = [torch.autograd.grad(value, T)[0] for value in (compiled, twice(T))]
    torch.testing.assert_close(*gradients)


def test_a_contiguous_batch_is_not_copied():
    T = torch.randn(3, 4, 5, requires_grad=True)
    _, [gradient] = soft_orthogonality_value_and_grad([T], batch_dims=1)
    assert gradient.is_contiguous()
    [folded], [count] = fold_batches([T], 1, 1)
    assert (folded.data_ptr(), tuple(folded.shape), count) == (T.data_ptr(), (12, 5), 3)


@pytest.mark.parametrize(
    ("shapes", "options", "words"),
    [
        ([(8, 3, 3)], {"groups": 2, "batch_dims": 1}, r"weights\[0\] was given batch_dims=1 and groups=2"),
        ([(4, 3, 4)], {"batch_dims": 2}, r"weights\[0\] has shape \(4, 3, 4\), of which batch_dims=2 leaves 1"),
        ([(4, 4)], {"batch_dims": 5}, r"weights\[0\] has shape \(4, 4\), of which batch_dims=5 leaves 0"),
        ([(4, 3, 4)], {"batch_dims": -1}, r"weights\[0\] was given batch_dims=-1; expected an int, 0 or more"),
        ([(4, 3, 4)], {"batch_dims": True}, r"weights\[0\] was given batch_dims=True"),
        ([(4, 3, 4)], {"batch_dims": False}, r"weights\[0\] was given batch_dims=False"),
        ([(4, 3, 4)], {"batch_dims": [1, 1]}, "one int a weight: got 2 for 1 weights"),
        ([(4, 4, 4), (0, 3, 4)], {"batch_dims": 1}, r"weights\[1\] has shape \(0, 3, 4\): its batch is empty"),
    ],
)  # fmt: skip
def test_what_is_no_batch_is_refused(shapes, options, words):
    Ws = [torch.randn(shape) for shape in shapes]
    for function in (soft_orthogonality, srip, soft_orthogonality_value_and_grad, srip_value_and_grad):
        with pytest.raises(ValueError, match=words):
            function(Ws, **options)


def test_words_for_pairs_show_the_matrices_of_a_batch():
    words = (
        r"weights\[0\], seen as 2 x \(3 x 4\), has rows of 4 numbers, against\[0\], seen as 2 x \(5 x 3\), rows of 3"
    )
    with pytest.raises(ValueError, match=words):
        soft_orthogonality([torch.randn(2, 3, 4)], against=[torch.randn(2, 5, 3)], batch_dims=1)


def test_dimensions_may_come_as_an_array():
    import numpy as np

    Ws = [torch.randn(2, 3, 4), torch.randn(3, 4)]
    dims = np.array([1, 0])
    assert soft_orthogonality(Ws, batch_dims=dims) == soft_orthogonality(Ws, batch_dims=[1, 0])


def test_start_vectors_of_a_batch_are_one_a_matrix():
    with pytest.raises(ValueError, match=r"start\[0\] has shape \(4, 3\); expected \(3, 4\)"):
        srip([torch.randn(3, 4, 5)], batch_dims=1, start=[torch.randn(4, 3)])


def test_freed_storage_is_named_before_it_is_copied():
    T = torch.randn(3, 4, 5).transpose(1, 2)
    T.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"weights\[0\] has no storage"):
        soft_orthogonality([T], batch_dims=1)


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "l1", "normalize": "rows"},
        {"norm": "max"},
        {"reduction": "entries"},
        {"side": "both", "reduction": "mean"},
        {"side": "large", "diagonal": 0.5, "squared": False},
    ],
    ids=str,
)
def test_every_option_is_that_of_the_single_matrices(backend, options):
    Ws = weights()
    value = soft_orthogonality(Ws, **OPTIONS, **options)
    truth = soft_orthogonality(single_matrices(Ws), **options)
    torch.testing.assert_close(value, truth)
    for gradient, true in zip(torch.autograd.grad(value, Ws), torch.autograd.grad(truth, Ws), strict=True):
        torch.testing.assert_close(gradient, true)
    _, given = soft_orthogonality_value_and_grad(Ws, **OPTIONS, **options)
    for gradient, true in zip(
        given, torch.autograd.grad(soft_orthogonality(Ws, **OPTIONS, **options), Ws), strict=True
    ):
        torch.testing.assert_close(gradient, true)
