"""Bad input is refused in words that say which weight, what was given and what is accepted."""

import inspect
import warnings

import pytest
import torch

import ortho_kernels
from ortho_kernels import reference, soft_orthogonality, srip

PENALTIES = [soft_orthogonality, srip]
GOOD = torch.randn(4, 6)

with warnings.catch_warnings():  # quantized and CSR tensors warn where they are made
    warnings.simplefilter("ignore", UserWarning)
    QUANTIZED, CSR = torch.quantize_per_tensor(GOOD, 0.1, 0, torch.qint8), GOOD.to_sparse_csr()
BAD_WEIGHTS = {
    "int": (torch.ones(4, 6, dtype=torch.int64), TypeError, "dtype torch.int64; expected float64"),
    "bool": (torch.ones(4, 6, dtype=torch.bool), TypeError, "dtype torch.bool"),
    "complex": (torch.randn(4, 6, dtype=torch.complex64), TypeError, "dtype torch.complex64"),
    "float8": (torch.zeros(4, 6).to(torch.float8_e4m3fn), TypeError, "dtype torch.float8_e4m3fn"),
    "quantized": (QUANTIZED, TypeError, "dtype torch.qint8"),
    "sparse": (GOOD.to_sparse(), TypeError, "layout torch.sparse_coo; expected a dense tensor"),
    "sparse_csr": (CSR, TypeError, "layout torch.sparse_csr"),
    "meta": (torch.empty(4, 6, device="meta"), ValueError, "meta device"),
    "0-d": (torch.tensor(1.0), ValueError, r"shape \(\); expected at least 2 dimensions"),
    "1-d": (torch.ones(4), ValueError, r"shape \(4,\); expected at least 2 dimensions"),
    "not a tensor": ([[1.0, 2.0]], TypeError, "is a list; expected a torch.Tensor"),
    "array": (GOOD.numpy(), TypeError, "is a ndarray"),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_that_cannot_be_penalized(backend, penalty, name):
    weight, error, words = BAD_WEIGHTS[name]
    with pytest.raises(error, match=rf"weights\[1\].*{words}"):
        penalty([GOOD, weight])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_one_tensor_is_not_a_list(penalty):
    with pytest.raises(TypeError, match=r"wrap it, \[weight\]"):
        penalty(GOOD)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": "left"}, "side must be one of 'small'.*got 'left'"),
        ({"side": ["small"]}, r"side must be one of 'small'.*got \['small'\]"),
        ({"reduction": "max"}, "reduction must be one of.*got 'max'"),
        ({"groups": 3}, r"weights\[0\] has 4 output channels, which 3 groups don't divide"),
        ({"groups": 0}, "groups=0; expected a positive int"),
        ({"groups": [1, 1]}, "got 2 for 1 weights"),
    ],
)
def test_options(penalty, options, words):
    with pytest.raises(ValueError, match=words):
        penalty([GOOD], **options)


@pytest.mark.parametrize(
    "factor", [-1.0, float("nan"), float("inf"), "1", None, 1j, torch.tensor(1.0, requires_grad=True), torch.ones(2)]
)
@pytest.mark.parametrize("name", ["diagonal", "off_diagonal"])
def test_factors(name, factor):
    with pytest.raises(ValueError, match=f"{name} must be a finite number"):
        soft_orthogonality([GOOD], **{name: factor})


@pytest.mark.parametrize("penalty", [*PENALTIES, ortho_kernels.convolution_orthogonality])
@pytest.mark.parametrize("squared", ["no", None, 2])
def test_squared(penalty, squared):
    with pytest.raises(ValueError, match="squared must be one of True, False"):
        penalty([GOOD], squared=squared)


@pytest.mark.parametrize("penalty", [*PENALTIES, ortho_kernels.convolution_orthogonality])
def test_what_is_no_list(penalty):
    with pytest.raises(
        TypeError, match="weights must be a list of tensors; got a Linear; OrthogonalityPenalty takes a"
    ):
        penalty(torch.nn.Linear(4, 6))
    with pytest.raises(TypeError, match="weights must be a list of tensors; got a NoneType"):
        penalty(None)


def test_iterators_count_as_lists():
    A, B = torch.randn(2, 4, 6)
    assert soft_orthogonality(iter([A]), against=iter([B])) == soft_orthogonality([A], against=[B])
    start = torch.randn(1, 4)
    assert srip(iter([A]), start=iter([start])) == srip([A], start=[start])


@pytest.mark.parametrize("iterations", [0, -1, 1.5, True, None])
def test_iterations(iterations):
    with pytest.raises(ValueError, match="iterations must be a positive int"):
        srip([GOOD], iterations=iterations)


def test_numpy_integers_count():
    import numpy as np

    weight = torch.randn(4, 6)
    assert soft_orthogonality([weight], groups=np.int64(2)) == soft_orthogonality([weight], groups=2)
    assert srip([GOOD], iterations=np.int32(3)).isfinite()


def test_generator():
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator; got 3"):
        srip([GOOD], generator=3)


def test_gradient_kind():
    with pytest.raises(ValueError, match="gradient must be one of 'through', 'envelope'"):
        srip([GOOD], gradient="exact")


@pytest.mark.parametrize(
    ("start", "error", "words"),
    [
        ([], ValueError, "got 0 tensors for 1 weights"),
        (torch.ones(1, 4), ValueError, "got one tensor for 1 weights"),
        ([torch.ones(4)], ValueError, r"start\[0\] has shape \(4,\); expected \(1, 4\)"),
        ([torch.ones(1, 6)], ValueError, r"shape \(1, 6\); expected \(1, 4\).*weights\[0\], a 4 x 6 view"),
        ([torch.ones(1, 4, dtype=torch.int32)], TypeError, r"start\[0\] must be a plain floating-point tensor"),
        (["ones"], TypeError, r"start\[0\] must be a plain floating-point tensor"),
    ],
)
def test_start(start, error, words):
    with pytest.raises(error, match=words):
        srip([GOOD], start=start)


def test_a_refused_call_draws_nothing():
    """An error leaves the random state as it was."""
    state = torch.get_rng_state()
    with pytest.raises(TypeError):
        srip([GOOD, GOOD.int()])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["soft_orthogonality", "srip"])
def test_reference_has_the_same_signatures(name):
    assert inspect.signature(getattr(ortho_kernels, name)) == inspect.signature(getattr(reference, name))


@pytest.mark.gpu
@pytest.mark.parametrize("penalty", PENALTIES)
def test_different_devices(penalty):
    with pytest.raises(ValueError, match=r"weights\[1\] is on cuda:0, but the weights before it are on cpu"):
        penalty([GOOD, GOOD.cuda()])


def test_different_devices_without_a_gpu(monkeypatch):
    """The same check, on what a second device looks like to it."""
    from ortho_kernels.weight_checks import check_weights

    class Elsewhere(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda:0")

    with pytest.raises(ValueError, match=r"b is on cuda:0, but the weights before it are on cpu"):
        check_weights([GOOD, torch.randn(3, 3).as_subclass(Elsewhere)], [1, 1], ["a", "b"])
