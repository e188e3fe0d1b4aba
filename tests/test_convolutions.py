"""The penalty of a convolution with itself, against conv2d in float64."""

import pytest
import torch
from torch.nn.functional import conv2d
from truth import near_orthogonal, relative

from ortho_kernels import convolution_orthogonality, reference, soft_orthogonality, use_backend
from ortho_kernels.backends.cpu import CpuBackend
from ortho_kernels.backends.registry import BACKENDS
from ortho_kernels.compat import deconv_orth_dist
from ortho_kernels.options import OCNN
from ortho_kernels.shifts import kept_entries

OPERATORS = torch.ops.ortho_kernels
UTILS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


def truth(weight, stride, padding, groups=1):
    """Values of all groups, and the gradient of their sum, by conv2d."""
    leaf = weight.detach().double().requires_grad_()
    values = []
    for K in leaf.chunk(groups):
        Z = conv2d(K, K, stride=stride, padding=padding)
        target = torch.zeros_like(Z)
        target[:, :, Z.shape[2] // 2, Z.shape[3] // 2] = torch.eye(len(K))
        values.append((Z - target).square().sum())
    values = torch.stack(values)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


def compare(weight, stride, padding=None, groups=1, tolerance=1e-6):
    size = weight.shape[2:]
    strides = (stride, stride) if isinstance(stride, int) else stride
    full = tuple((k - 1) // s * s for k, s in zip(size, strides, strict=True))
    values, gradient = truth(weight, stride, full if padding is None else padding, groups)
    leaf = weight.detach().requires_grad_()
    own = convolution_orthogonality([leaf], stride=stride, padding=padding, groups=groups, reduction="none")
    assert own.dtype == (torch.float64 if weight.dtype is torch.float64 else torch.float32)
    assert relative(own, values) < tolerance
    (own_gradient,) = torch.autograd.grad(own.sum(), leaf)
    assert own_gradient.shape == weight.shape
    rounding = {torch.bfloat16: 4e-3, torch.float16: 5e-4}.get(weight.dtype, 0)
    assert relative(own_gradient, gradient) < tolerance + rounding


def channels_last(weight):
    return weight.to(memory_format=torch.channels_last)


LAYOUTS = {
    "contiguous": lambda weight: weight,
    "channels_last": channels_last,
    "sliced": lambda weight: torch.cat([weight, weight], dim=1)[:, ::2],
    "taps first": lambda weight: weight.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1),
    "filters last": lambda weight: weight.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 5), (7, 7), (1, 3), (4, 2)])
def test_strides_and_sizes(backend, size, stride):
    compare(torch.randn(10, 7, *size) / 8, stride)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(6, 5, 3, 3), (40, 33, 3, 3), (130, 3, 2, 5), (70, 64, 1, 1), (9, 1, 3, 3), (3, 2, 17, 17)]
)
def test_layouts(kernels, layout, shape):
    compare(LAYOUTS[layout](torch.randn(shape) / 8), 1)


@pytest.mark.parametrize("filters", [1, 63, 65, 128, 257, 300])
def test_tiles(kernels, filters):
    """On both sides of what one tile holds, and of the order up to which sums are double."""
    compare(torch.randn(filters, 270 if filters < 100 else 17, 3, 3) / 16, 1)


@pytest.mark.parametrize("padding", [0, 1, 2, (2, 0), (0, 1)])
def test_paddings(backend, padding):
    compare(torch.randn(12, 8, 3, 3) / 8, 1, padding)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtypes_and_groups(backend, dtype, layout):
    for groups in (1, 3, 12):
        compare(LAYOUTS[layout](torch.randn(12, 4, 3, 3).to(dtype) / 4), 1, groups=groups)


def test_one_call_for_all(backend):
    shapes = [(8, 3, 3, 3), (6, 5), (4, 7, 5), (10, 2, 1, 1), (6, 4, 3, 5)]
    leaves = [torch.randn(shape, requires_grad=True) for shape in shapes]
    strides, paddings = [1, 2, 2, (3, 1), (1, 2)], [2, 0, None, None, (1, 4)]
    resolved = [(2, 2), (0, 0), (0, 4), (0, 0), (1, 4)]
    values = convolution_orthogonality(
        leaves, stride=strides, padding=paddings, groups=[2, 1, 1, 5, 1], reduction="none"
    )
    expected, gradients = [], []
    for leaf, stride, padding, groups in zip(leaves, strides, resolved, [2, 1, 1, 5, 1], strict=True):
        height, width = (1, 1, *leaf.shape[2:])[-2:]
        value, gradient = truth(leaf.reshape(*leaf.shape[:2], height, width), stride, padding, groups)
        expected.append(value)
        gradients.append(gradient.reshape(leaf.shape))
    assert relative(values, torch.cat(expected)) < 1e-6
    for own, true in zip(torch.autograd.grad(values.sum(), leaves), gradients, strict=True):
        assert relative(own, true) < 1e-6
    options = {"stride": strides, "padding": paddings, "groups": [2, 1, 1, 5, 1]}
    torch.testing.assert_close(convolution_orthogonality(leaves, **options), values.sum())
    torch.testing.assert_close(convolution_orthogonality(leaves, **options, reduction="mean"), values.mean())
    roots = convolution_orthogonality(leaves, **options, squared=False, reduction="none")
    torch.testing.assert_close(roots, values.sqrt())


def test_nothing(kernels):
    assert convolution_orthogonality([]) == 0
    for shape in [(0, 3, 3, 3), (4, 0, 3, 3)]:
        assert convolution_orthogonality([torch.zeros(shape)]) == shape[0]


def test_a_linear_weight_is_the_zero_shift(backend):
    leaf = torch.randn(9, 20, requires_grad=True)
    values = [convolution_orthogonality([leaf]), soft_orthogonality([leaf], side="rows")]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, leaf) for value in values))


def test_the_formula_on_the_board():
    for shape, stride in [((6, 5, 3, 3), 1), ((6, 5, 4, 4), 2), ((6, 5, 5, 5), 3)]:
        K = torch.randn(shape, dtype=torch.float64)
        value = convolution_orthogonality([K], stride=stride)
        torch.testing.assert_close(value, reference.paper_ocnn(K, stride))


def orthogonal_kernel(filters, channels, dtype=torch.float32):
    """One tap alone: a convolution whose rows are orthonormal."""
    kernel = torch.zeros(filters, channels, 3, 3, dtype=dtype)
    kernel[:, :, 1, 1] = torch.eye(filters, channels)
    return kernel


@pytest.mark.parametrize("filters", [8, 80])
def test_at_an_orthogonal_convolution(backend, filters):
    kernel = orthogonal_kernel(filters, 90).requires_grad_()
    for squared in (True, False):
        value = convolution_orthogonality([kernel], squared=squared)
        (gradient,) = torch.autograd.grad(value, kernel)
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("filters", [16, 64, 96])
def test_near_an_orthogonal_convolution(kernels, filters):
    """Where the residuals are differences of nearly equal numbers."""
    rotation = near_orthogonal(filters, 128, dtype=torch.float64, noise=0)
    kernel = torch.zeros(filters, 128, 3, 3, dtype=torch.float64)
    kernel[:, :, 1, 1] = rotation
    kernel = (kernel + 1e-3 * torch.randn_like(kernel)).float()
    values, gradient = truth(kernel, 1, 2)
    leaf = kernel.requires_grad_()
    value = convolution_orthogonality([leaf])
    assert relative(value, values.sum()) < 1e-5
    assert relative(torch.autograd.grad(value, leaf)[0], gradient) < 1e-5


def test_zero_kernels_and_nan(backend):
    kernel = torch.zeros(6, 5, 3, 3, requires_grad=True)
    value = convolution_orthogonality([kernel])
    assert value == 6
    assert not torch.autograd.grad(value, kernel)[0].any()
    with torch.no_grad():
        kernel[2, 1, 0, 0] = torch.nan
    value = convolution_orthogonality([torch.randn(4, 4, 3, 3), kernel], reduction="none")
    assert value.isnan().tolist() == [False, True]
    assert torch.autograd.grad(value.sum(), kernel)[0].isnan().any()


def test_gradcheck(kernels):
    leaves = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(4, 3, 3, 3), (4, 3, 2), (3, 5)]
    ]
    assert torch.autograd.gradcheck(
        lambda *w: convolution_orthogonality(w, stride=[2, 1, 1], groups=[2, 1, 1], squared=False, reduction="none"),
        leaves,
    )
    leaf = channels_last(torch.randn(4, 3, 3, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(deconv_orth_dist, leaf)


DESCRIBED = ([2, 1, 1], [1, 1, 2, 2, 1, 1], [2, 2, 1, 1, 0, 0], [2, 2, 1, 1, 0, 0])


def described_weights(requires_grad):
    return [torch.randn(shape).requires_grad_(requires_grad) for shape in [(6, 2, 3, 3), (5, 4, 3, 3), (4, 7)]]


@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck(requires_grad):
    arguments = (described_weights(requires_grad), *DESCRIBED, requires_grad)
    torch.library.opcheck(OPERATORS.convolution_orthogonality.default, arguments, test_utils=UTILS)


@pytest.mark.parametrize("accumulate", [True, False])
def test_opcheck_backward(accumulate):
    weights, factors = described_weights(False), torch.randn(4)
    _, residuals = OPERATORS.convolution_orthogonality(weights, *DESCRIBED, True)
    gradients = [torch.randn_like(weights[0]), torch.randn_like(weights[2])]
    arguments = (factors, weights, *DESCRIBED, residuals, gradients, [1, 0, 1], accumulate)
    torch.library.opcheck(OPERATORS.convolution_orthogonality_backward.default, arguments, test_utils=UTILS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_are_written_or_added(kernels, layout):
    weight = LAYOUTS[layout](torch.randn(20, 6, 3, 3))
    described = ([1], [1, 1], [2, 2], [2, 2])
    _, residuals = OPERATORS.convolution_orthogonality([weight], *described, True)
    given, factors = torch.randn_like(weight), torch.tensor([0.5])
    added, written = given.clone(), torch.full_like(weight, torch.nan)
    for target, accumulate in ((added, True), (written, False)):
        OPERATORS.convolution_orthogonality_backward(
            factors, [weight], *described, residuals, [target], [1], accumulate
        )
    assert relative(written, truth(weight, 1, 2)[1] / 2) < 1e-6
    torch.testing.assert_close(added, given + written)


def test_what_is_kept(kernels):
    """Python's rule of what is kept, against the kernels': more strides, paddings and places than the functions allow."""
    for size in [(1, 1), (3, 3), (2, 5)]:
        weight = torch.randn(4, 3, *size)
        for stride in [(1, 1), (2, 2), (3, 1)]:
            for padding in [(0, 0), (1, 1), (2, 4), (5, 7)]:
                for identity in [(0, 0), tuple(p // s for p, s in zip(padding, stride, strict=True))]:
                    _, residuals = OPERATORS.convolution_orthogonality([weight], [2], stride, padding, identity, True)
                    assert len(residuals) == 2 * kept_entries(weight.shape, 2, stride, padding, identity)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(backend, dynamic):
    compiled = torch.compile(
        lambda *w: convolution_orthogonality(w, stride=[1, 2]) + deconv_orth_dist(w[0]),
        fullgraph=True, backend="aot_eager", dynamic=dynamic,
    )  # fmt: skip
    for filters in (4, 6):
        leaves = [torch.randn(filters, 3, 3, 3, requires_grad=True), torch.randn(filters, 4, 5, requires_grad=True)]
        value = compiled(*leaves)
        plain = convolution_orthogonality(leaves, stride=[1, 2]) + deconv_orth_dist(leaves[0])
        torch.testing.assert_close(value, plain)
        for gradients in zip(*(torch.autograd.grad(v, leaves) for v in (value, plain)), strict=True):
            torch.testing.assert_close(*gradients)


def test_threads_do_not_change_a_bit(kernels):
    leaves = [torch.randn(s, requires_grad=True) for s in [(300, 40, 3, 3), (64, 64, 3, 3), (33, 5)]]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values = convolution_orthogonality(leaves, reduction="none")
            results.append([values, *torch.autograd.grad(values.sum(), leaves)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def released(kernel, stride=2, padding=1):
    """As imagenet/utils.py of the released code has it, on the CPU."""
    o_c = kernel.shape[0]
    output = torch.conv2d(kernel, kernel, stride=stride, padding=padding)
    target = torch.zeros((o_c, o_c, output.shape[-2], output.shape[-1]), dtype=kernel.dtype)
    ct = int(output.shape[-1] / 2)
    target[:, :, ct, ct] = torch.eye(o_c)
    return torch.norm(output - target)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("stride", "padding"), [(2, 1), (1, 1), (1, 2), (3, 1), (2, 3), (1, 4), (3, 2), ((2, 1), (2, 1))]
)
@pytest.mark.parametrize("size", [(3, 3), (1, 1), (4, 4), (3, 1)])
def test_deconv_orth_dist(backend, size, stride, padding, layout):
    kernel = LAYOUTS[layout](torch.randn(10, 6, *size)).requires_grad_()
    leaf = kernel.detach().double().requires_grad_()
    value, true = deconv_orth_dist(kernel, stride, padding), released(leaf, stride, padding)
    assert abs(value - true) < 1e-5 * true
    own, gradient = torch.autograd.grad(value, kernel)[0], torch.autograd.grad(true, leaf)[0]
    torch.testing.assert_close(own.double(), gradient, rtol=1e-4, atol=1e-5)


def test_deconv_orth_dist_at_its_defaults():
    """The identity is held against the shift (1, 1)."""
    kernel = torch.zeros(4, 4, 3, 3)
    kernel[:, :, 0, 0] = torch.eye(4)
    kernel[:, :, 1, 1] = torch.eye(4)
    other = kernel.requires_grad_()
    value = deconv_orth_dist(other)
    assert value == 2  # of the shift (-1, -1), against zero
    assert deconv_orth_dist(torch.zeros(4, 4, 3, 3)) == 2  # of the shift (1, 1), against the identity


def test_deconv_orth_dist_at_zero(backend):
    kernel = orthogonal_kernel(5, 6).requires_grad_()
    value = deconv_orth_dist(kernel, stride=1, padding=1)
    assert value == 0
    assert not torch.autograd.grad(value, kernel)[0].any()


GOOD = torch.randn(4, 2, 3, 3)


@pytest.mark.parametrize(
    ("weight", "options", "words"),
    [
        (GOOD, {"stride": [1, 0]}, r"weights\[1\] was given stride=0; expected an int or a tuple \(y, x\), 1 or more"),
        (GOOD, {"stride": [1, -1]}, r"weights\[1\] was given stride=-1"),
        (GOOD, {"stride": [1, (1, 2, 3)]}, r"weights\[1\] was given stride=\(1, 2, 3\)"),
        (GOOD, {"padding": [2, -1]}, r"weights\[1\] was given padding=-1; expected None or an int"),
        (GOOD, {"padding": [2, 3]}, r"weights\[1\], a 3 x 3 kernel.*padding=3 at stride=1.*up to \(2, 2\).*compat.deconv"),
        (GOOD, {"stride": 2, "padding": [2, 1]}, r"weights\[1\].*padding=1 at stride=2.*the zero shift.*compat.deconv"),
        (GOOD, {"stride": [1, 1, 1]}, "stride must be .*a list with one for each: got 3 for 2 weights"),
        (torch.randn(4, 3, 3), {"padding": [2, (1, 1)]}, r"weights\[1\] was given padding=\(1, 1\).*a tuple of one"),
        (torch.randn(4, 3, 1, 3, 3), {}, r"weights\[1\] has shape \(4, 3, 1, 3, 3\); expected a kernel of one or two"),
        (GOOD, {"groups": [1, 3]}, r"weights\[1\] has 4 output channels, which 3 groups don't divide"),
        (GOOD, {"reduction": "entries"}, "reduction must be one of 'sum', 'mean', 'none'; got 'entries'"),
    ],
)  # fmt: skip
def test_errors(backend, weight, options, words):
    with pytest.raises(ValueError, match=words):
        convolution_orthogonality([GOOD, weight], **options)


@pytest.mark.parametrize(
    ("kernel", "options", "words"),
    [
        (torch.randn(4, 3), {}, r"kernel must be \(out, in, k, k\).*got shape \(4, 3\)"),
        (GOOD, {"stride": 0}, "stride .*got shape .*stride=0"),
        (GOOD, {"padding": -1}, "padding=-1"),
        (GOOD, {"padding": (0, 2), "stride": 1}, r"is 1 x 5: it has no place \(2, 2\)"),
    ],
)
def test_errors_of_deconv_orth_dist(kernel, options, words):
    with pytest.raises(ValueError, match=words):
        deconv_orth_dist(kernel, **options)


def test_operators_refuse_what_no_convolution_has():
    weight = torch.randn(4, 3, 3, 3)
    for described, words in [
        (([1], [0, 1], [0, 0], [0, 0]), r"weights\[0\]: expected positive strides"),
        (([1], [1, 1], [-1, 0], [0, 0]), r"weights\[0\]: expected no negative padding"),
        (([1], [1, 1], [1, 1], [3, 0]), r"weights\[0\]: expected the identity's place within the output"),
        (([1], [1, 1], [1, 1], [0]), "two strides, paddings and places of the identity for each of 1 weights"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            OPERATORS.convolution_orthogonality([weight], *described, False)


def test_gpu_backends_lack_it():
    options = OCNN(((1, 1),), ((2, 2),), ((2, 2),))
    lacks = {name: backend.lacks(options) for name, backend in BACKENDS.items()}
    own = "convolution_orthogonality"
    assert lacks == {"cuda": own, "triton": own, "cpu": None, "torch": None}


def test_the_reference_serves_a_backend_that_lacks_it(monkeypatch):
    monkeypatch.setattr(CpuBackend, "lacking", ("convolution_orthogonality",))
    leaf = torch.randn(5, 4, 3, 2, requires_grad=True)
    words = "the backend 'cpu' lacks convolution_orthogonality: the torch backend serves"
    with use_backend("cpu"), pytest.warns(UserWarning, match=words):
        value = convolution_orthogonality([leaf])
    assert relative(value, truth(leaf, 1, (2, 1))[0].sum()) < 1e-6
    (gradient,) = torch.autograd.grad(value, leaf, create_graph=True)
    assert gradient.requires_grad  # autograd's own


def test_second_derivatives_are_the_reference_s():
    leaf = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(convolution_orthogonality([leaf]), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiated once.*use_backend\('torch'\)"):
        gradient.sum().backward()
    with use_backend("torch"):
        assert torch.autograd.gradgradcheck(lambda w: convolution_orthogonality([w]), leaf)
