"""`against`: the norms of A B^T of pairs of weights, against plain torch in float64, on every backend."""

import pytest
import torch
from torch import nn
from truth import as_matrices, relative

from ortho_kernels import reference, soft_orthogonality, soft_orthogonality_value_and_grad
from ortho_kernels.backends.cpu import CpuBackend
from ortho_kernels.backends.cuda import CudaBackend

ops = torch.ops.ortho_kernels

NORMS = ("fro", "l1", "l21", "max")
# Shapes of A and of B.
PAIRS = [
    ((8, 40), (5, 40)),
    ((70, 3, 3, 3), (9, 27)),
    ((130, 90), (200, 90)),
    ((1, 5), (6, 5)),
    ((5, 1), (1, 1)),
    ((0, 4), (3, 4)),
    ((3, 0), (4, 0)),
]
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}


def pairs(dtype=torch.float32, shapes=PAIRS):
    """All A, and all B."""
    return [[torch.randn(pair[side]).div(4).to(dtype).requires_grad_() for pair in shapes] for side in (0, 1)]


def norm_of(G, norm):
    """From the definitions."""
    if norm == "l21":
        return torch.stack([row.norm() for row in G]).sum() if len(G) else G.sum()
    if norm == "max":
        return G.abs().max() if G.numel() else G.sum()
    return (G * G).sum() if norm == "fro" else G.abs().sum()


def truth(As, Bs, norm="fro", groups=1, rows_of_length_1=False):
    """The values, with their graph, and the leaves."""
    leaves = [[W.detach().double().contiguous().requires_grad_() for W in Ws] for Ws in (As, Bs)]
    counts = [groups] * len(As) if isinstance(groups, int) else groups
    values = []
    for A, B, count in zip(*leaves, counts, strict=True):
        for a, b in zip(A.flatten(1).chunk(count), B.flatten(1).chunk(count), strict=True):
            if rows_of_length_1:
                a, b = nn.functional.normalize(a), nn.functional.normalize(b)
            values.append(norm_of(a @ b.T, norm))
    return torch.stack(values), leaves[0] + leaves[1]


def check(As, Bs, norm="fro", groups=1, tolerance=1e-5, **options):
    values = soft_orthogonality(As, against=Bs, norm=norm, groups=groups, reduction="none", **options)
    expected, leaves = truth(As, Bs, norm, groups, rows_of_length_1="normalize" in options)
    assert relative(values.detach(), expected.detach()) < 1e-5
    factors = torch.linspace(0.5, 1.5, len(values), dtype=torch.float64)
    gradients = torch.autograd.grad(values, As + Bs, factors.to(values.dtype))
    for gradient, true, W in zip(gradients, torch.autograd.grad(expected, leaves, factors), As + Bs, strict=True):
        assert gradient.dtype == W.dtype
        assert gradient.shape == W.shape
        assert (gradient.double() - true).norm() <= tolerance * true.norm()
    return values


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_values_and_gradients(backend, norm, dtype):
    values = check(*pairs(dtype), norm, tolerance=ROUNDING[dtype])
    assert values.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [((300, 700), (530, 700)), ((8, 300_000), (12, 300_000))], ids=["tiles", "parts"])
def test_several_tiles_and_parts_of_the_depth(kernels, shape, norm):
    check(*pairs(shapes=[shape]), norm)


@pytest.mark.smoke
def test_nearly_orthogonal_pairs_keep_their_digits(kernels):
    """G is a sum that nearly cancels."""
    for n, m, k in [(8, 8, 4096), (3, 70, 500), (96, 128, 1000)]:
        Q = nn.init.orthogonal_(torch.empty(n + m, k, dtype=torch.float64))
        A, B = (Q + 1e-4 * torch.randn_like(Q)).float().split([n, m])
        value, expected = soft_orthogonality([A], against=[B]), truth([A], [B])[0]
        assert relative(value, expected.detach()) < 1e-5


def strided():
    base, other = torch.randn(24, 6, 3, 3), torch.randn(10, 6, 3, 3)
    last = {"memory_format": torch.channels_last}
    return {
        "transposed": (torch.randn(54, 24).T, torch.randn(10, 54)),
        "both transposed": (torch.randn(54, 24).T, torch.randn(54, 10).T),
        "every other row": (torch.randn(48, 54)[::2], torch.randn(10, 54)),
        "every other column": (torch.randn(24, 54), torch.randn(10, 108)[:, ::2]),
        "repeated rows": (torch.randn(1, 54).expand(24, 54), torch.randn(10, 54)),
        "channels_last": (base.to(**last), other.to(**last)),
        "channels_last and contiguous": (base.to(**last), other),
        "contiguous and channels_last": (base, other.to(**last)),
        "channels_last and flat": (base.to(**last), other.flatten(1)),
        "rows of channels_last": (base.to(**last)[::3], other.to(**last)),
        "kernels turned": (base.permute(0, 1, 3, 2), other),
        "other orders": (torch.randn(24, 6, 3, 2).to(**last), torch.randn(10, 2, 3, 6).permute(0, 3, 1, 2)),
        "same strides, other kernels": (torch.randn(24, 4, 3, 2).to(**last), torch.randn(10, 2, 3, 4).to(**last)),
        "copied": (torch.randn(24, 12, 9)[:, ::2], torch.randn(10, 54)),
    }


@pytest.mark.smoke
@pytest.mark.parametrize("name", strided())
def test_strides_and_memory_formats(backend, name):
    A, B = (W.requires_grad_() for W in strided()[name])
    check([A], [B])
    check([B], [A], "l1")
    _, (gradient,) = soft_orthogonality_value_and_grad([A], against=[B])
    target = torch.zeros(A.shape)
    soft_orthogonality_value_and_grad([A], against=[B], accumulate_into=[target])
    (true, _) = torch.autograd.grad(*(lambda values, leaves: (values.sum(), leaves))(*truth([A], [B])))
    assert relative(gradient, true) < 1e-5
    assert relative(target, true) < 1e-5


def test_gradients_keep_the_memory_format(kernels):
    A, B = (torch.randn(n, 6, 3, 3).to(memory_format=torch.channels_last).requires_grad_() for n in (24, 10))
    for gradient in torch.autograd.grad(soft_orthogonality([A], against=[B]), [A, B]):
        assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", NORMS)
def test_groups(backend, norm):
    As, Bs = pairs(shapes=[((8, 5, 3, 3), (12, 45)), ((3, 7), (2, 7))])
    values = check(As, Bs, norm, groups=[4, 1])
    assert values.shape == (5,)
    mean = soft_orthogonality(As, against=Bs, norm=norm, groups=[4, 1], reduction="mean")
    torch.testing.assert_close(mean, values.mean())


@pytest.mark.parametrize("norm", NORMS)
def test_rows_of_length_1(backend, norm):
    As, Bs = pairs(shapes=[((8, 40), (5, 40)), ((12, 3, 3, 3), (9, 3, 3, 3))])
    Bs[1] = Bs[1].detach().to(memory_format=torch.channels_last).requires_grad_()
    check(As, Bs, norm, normalize="rows")
    _, gradients = soft_orthogonality_value_and_grad(As, against=Bs, norm=norm, normalize="rows", scale=2.0)
    values, leaves = truth(As, Bs, norm, rows_of_length_1=True)
    for gradient, true in zip(gradients, torch.autograd.grad(values.sum(), leaves[:2]), strict=True):
        assert relative(gradient, 2 * true) < 1e-5


@pytest.mark.parametrize("options", [{"normalize": "rows"}, {}, {"norm": "l21"}, {"norm": "max"}], ids=str)
def test_zero_rows_have_zero_gradients(backend, options):
    A, B = torch.randn(4, 6), torch.randn(3, 6)
    A[1], B[2] = 0, 0
    A.requires_grad_(), B.requires_grad_()
    value = soft_orthogonality([A], against=[B], **options)
    da, db = torch.autograd.grad(value, [A, B])
    assert value.isfinite()
    assert da.isfinite().all()
    assert db.isfinite().all()
    if options.get("norm") == "l21":
        assert not da[1].any()
    zero = torch.zeros(2, 6, requires_grad=True)
    value = soft_orthogonality([zero], against=[zero], **options)
    assert value == 0
    assert not torch.autograd.grad(value, zero)[0].any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("norm", NORMS)
def test_nan_and_inf_come_out(backend, norm, bad):
    A, B = torch.randn(20, 70), torch.randn(30, 70)
    A[13, 55] = bad
    A.requires_grad_(), B.requires_grad_()
    good, value = soft_orthogonality([B, A], against=[B, B], norm=norm, reduction="none")
    assert good.isfinite()
    assert not value.isfinite()
    if bad != bad:
        assert any(g.isnan().any() for g in torch.autograd.grad(value, [A, B]))


@pytest.mark.parametrize("norm", NORMS)
def test_of_equal_largest_entries_the_first_gets_the_gradient(backend, norm):
    A, B = torch.eye(3).requires_grad_(), torch.eye(3)
    (gradient,) = torch.autograd.grad(soft_orthogonality([A], against=[B], norm=norm), A)
    expected = {"fro": 2 * torch.eye(3), "max": torch.diag(torch.tensor([1.0, 0, 0]))}.get(norm, torch.eye(3))
    assert torch.equal(gradient, expected)


@pytest.mark.parametrize("norm", ["fro", "l1", "l21"])
def test_mean_over_entries(backend, norm):
    As, Bs = pairs(shapes=PAIRS[:3])
    value = soft_orthogonality(As, against=Bs, norm=norm, reduction="entries")
    expected, leaves = truth(As, Bs, norm)
    sizes = torch.tensor([len(a) * len(b) for a, b in zip(*map(as_matrices, (As, Bs)), strict=True)])
    assert relative(value.detach(), (expected / sizes).sum().detach()) < 1e-5
    given, gradients = soft_orthogonality_value_and_grad(As, against=Bs, norm=norm, reduction="entries")
    torch.testing.assert_close(given, value.detach())
    for gradient, true in zip(gradients, torch.autograd.grad((expected / sizes).sum(), leaves[:3]), strict=True):
        assert relative(gradient, true) < 1e-5


@pytest.mark.parametrize("side", ["A", "B"])
def test_gradients_go_to_whichever_requires_them(backend, side):
    As, Bs = pairs(shapes=PAIRS[:3])
    wanted, constant = (As, Bs) if side == "A" else (Bs, As)
    for W in (*constant, wanted[1]):
        W.requires_grad_(False)
    soft_orthogonality(As, against=Bs).backward()
    expected, leaves = truth(As, Bs)
    true = torch.autograd.grad(expected.sum(), leaves)[0 if side == "A" else 3 :]
    assert all(W.grad is None for W in (*constant, wanted[1]))
    assert relative(wanted[0].grad, true[0]) < 1e-5
    assert relative(wanted[2].grad, true[2]) < 1e-5
    assert not soft_orthogonality([As[1]], against=[Bs[1]]).requires_grad


def test_a_weight_against_itself_and_listed_twice(backend):
    A, B = torch.randn(6, 9).requires_grad_(), torch.randn(4, 9).requires_grad_()
    values = soft_orthogonality([A, A, A], against=[A, B, B], reduction="none")
    a, b = (W.detach().double().requires_grad_() for W in (A, B))
    expected = torch.stack([norm_of(a @ a.T, "fro"), *[norm_of(a @ b.T, "fro")] * 2])
    assert relative(values.detach(), expected.detach()) < 1e-5
    given, true = (torch.autograd.grad(v.sum(), Ws) for v, Ws in ((values, [A, B]), (expected, [a, b])))
    assert all(relative(g, t) < 1e-5 for g, t in zip(given, true, strict=True))
    _, gradients = soft_orthogonality_value_and_grad([A], against=[A])
    assert relative(gradients[0], 2 * (a @ a.T @ a).detach()) < 1e-5  # the other is a constant


def test_value_and_gradients_in_one_call(backend):
    As, Bs = pairs(shapes=PAIRS[:3])
    expected, leaves = truth(As, Bs)
    true = torch.autograd.grad(expected.sum(), leaves[:3])
    value, gradients = soft_orthogonality_value_and_grad(As, against=Bs, scale=0.5)
    assert not value.requires_grad
    assert relative(value, expected.sum().detach()) < 1e-5
    assert all(relative(g, 0.5 * t) < 1e-5 for g, t in zip(gradients, true, strict=True))
    held = [torch.ones_like(As[0]), None, torch.zeros_like(As[2])]
    _, same = soft_orthogonality_value_and_grad(As, against=Bs, accumulate_into=held)
    assert same[1] is None
    assert relative(held[0], 1 + true[0]) < 1e-5
    assert relative(held[2], true[2]) < 1e-5


def test_an_empty_list_costs_nothing(backend):
    assert soft_orthogonality([], against=[]) == 0
    value, gradients = soft_orthogonality_value_and_grad([], against=[])
    assert (value, gradients) == (0, [])


def test_mixed_dtypes_among_pairs(backend):
    As, Bs = ([torch.randn(n, 9).to(dtype).requires_grad_() for dtype in ROUNDING] for n in (6, 4))
    assert check(As, Bs, tolerance=4e-3).dtype is torch.float64


@pytest.mark.parametrize("norm", NORMS)
def test_gradcheck(norm):
    As, Bs = pairs(torch.float64, [((6, 3, 2, 2), (4, 12)), ((3, 5), (2, 5))])

    def penalty(*leaves):
        return soft_orthogonality(leaves[:2], against=leaves[2:], norm=norm, groups=[2, 1], reduction="none")

    assert torch.autograd.gradcheck(penalty, As + Bs)


UTILS = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck(kernels, requires_grad):
    As, Bs = pairs(shapes=PAIRS[:3])
    for W in (*As, *Bs):
        W.requires_grad_(requires_grad)
    torch.library.opcheck(ops.cross_gram.default, (As, Bs, [1] * 3, 0, requires_grad), test_utils=UTILS)
    As, Bs = ([W.detach() for W in Ws] for Ws in (As, Bs))
    _, kept = ops.cross_gram(As, Bs, [1] * 3, 0, True)
    targets = [torch.zeros_like(W) for W in (As[0], As[2], Bs[1])]
    arguments = (torch.ones(3), As, Bs, [1] * 3, kept, 0, targets, [1, 0, 1, 0, 1, 0], True)
    torch.library.opcheck(ops.cross_gram_backward.default, arguments, test_utils=UTILS)


@pytest.mark.parametrize("normalize", [None, "rows"])
def test_compile_fullgraph(kernels, normalize):
    As, Bs = pairs(shapes=PAIRS[:2])
    Bs[1].requires_grad_(False)
    options = {"norm": "l1", "normalize": normalize}
    compiled = torch.compile(
        lambda As, Bs: soft_orthogonality(As, against=Bs, **options), fullgraph=True, backend="aot_eager"
    )
    value, expected = compiled(As, Bs), soft_orthogonality(As, against=Bs, **options)
    torch.testing.assert_close(value, expected)
    leaves = [*As, Bs[0]]
    torch.testing.assert_close(torch.autograd.grad(value, leaves), torch.autograd.grad(expected, leaves))


def test_functional_gradients(backend):
    As, Bs = pairs(shapes=PAIRS[:2])
    expected = torch.autograd.grad(soft_orthogonality(As, against=Bs), As + Bs)
    gradients = torch.func.grad(lambda As, Bs: soft_orthogonality(As, against=Bs), argnums=(0, 1))(As, Bs)
    torch.testing.assert_close((*gradients[0], *gradients[1]), expected)


def test_one_operator_forward_and_one_backward(kernels):
    from torch.profiler import profile

    As, Bs = pairs(shapes=PAIRS[:3] * 4)
    with profile() as trace:
        soft_orthogonality(As, against=Bs).backward()
    counts = {event.key: event.count for event in trace.key_averages()}
    assert counts["ortho_kernels::cross_gram"] == counts["ortho_kernels::cross_gram_backward"] == 1


def test_rows_of_many_pairs_are_scaled_together(kernels):
    """Two shapes, of which each takes a few operations forward and backward, however many pairs there are."""
    counts = []
    for pairs_of_a_shape in (2, 20):
        As = [torch.randn(shape, requires_grad=True) for shape in [(3, 8), (5, 7)] * pairs_of_a_shape]
        Bs = [torch.randn(2, A.shape[1]) for A in As]
        with torch.profiler.profile() as profile:
            value = soft_orthogonality(As, against=Bs, normalize="rows")
            torch.autograd.grad(value, As)
        events = profile.events()
        counts.append(sum(event.name in ("aten::linalg_vector_norm", "aten::div", "aten::where") for event in events))
    assert counts[0] == counts[1] > 0


def test_threads_do_not_change_a_bit(kernels):
    As, Bs = pairs(shapes=[((300, 700), (530, 700)), ((8, 300_000), (12, 300_000)), ((8, 4096), (8, 4096))])
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values = [soft_orthogonality(As, against=Bs, norm=norm, reduction="none") for norm in NORMS]
            results.append([*values, *(g for v in values for g in torch.autograd.grad(v.sum(), As + Bs))])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_matmul_precision_rounds_gradients_and_never_values(kernels):
    A, B = torch.randn(96, 200).requires_grad_(), torch.randn(80, 200)
    before, results = torch.get_float32_matmul_precision(), {}
    try:
        for precision in ("highest", "medium"):
            torch.set_float32_matmul_precision(precision)
            value = soft_orthogonality([A], against=[B])
            results[precision] = value.detach(), *torch.autograd.grad(value, A)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(results["highest"][0], results["medium"][0])
    assert relative(results["medium"][1], results["highest"][1].double()) < 4e-3


GOOD, OTHER = torch.randn(4, 6), torch.randn(3, 6)


@pytest.mark.parametrize(
    ("against", "error", "words"),
    [
        ([OTHER], ValueError, "against must have one tensor for each weight: got 1 for 2 weights"),
        (OTHER, TypeError, r"against must be a list of tensors; got one tensor: wrap it"),
        ([OTHER, "B"], TypeError, r"against\[1\] is a str; expected a torch.Tensor"),
        ([OTHER, torch.ones(6)], ValueError, r"against\[1\] has shape \(6,\); expected at least 2 dimensions"),
        ([OTHER, OTHER.int()], TypeError, r"against\[1\] has dtype torch.int32"),
        ([OTHER, OTHER.to_sparse()], TypeError, r"against\[1\] has layout torch.sparse_coo"),
        ([OTHER, torch.empty(3, 6, device="meta")], ValueError, r"against\[1\] is on the meta device"),
        (
            [OTHER, torch.randn(3, 2, 2)],
            ValueError,
            r"weights\[1\], seen as 4 x 6, has rows of 6 numbers, against\[1\], seen as 3 x 4, rows of 4",
        ),
        (
            [OTHER, OTHER.bfloat16()],
            TypeError,
            r"weights\[1\] has dtype torch.float32, against\[1\] torch.bfloat16; a pair needs one dtype: convert one of",
        ),
    ],
)
def test_words_for_others_that_make_no_pair(backend, against, error, words):
    for penalty in (soft_orthogonality, soft_orthogonality_value_and_grad):
        with pytest.raises(error, match=words):
            penalty([GOOD, GOOD], against=against)


def test_words_for_groups():
    with pytest.raises(ValueError, match=r"against\[0\] has 3 output channels, which 2 groups don't divide"):
        soft_orthogonality([GOOD], against=[OTHER], groups=2)
    with pytest.raises(ValueError, match="got 2 for 1 weights"):
        soft_orthogonality([GOOD], against=[OTHER], groups=[1, 1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": "rows"}, "side='rows' doesn't go with against"),
        ({"side": "both"}, "side='both' doesn't go with against"),
        ({"diagonal": 0.0}, r"diagonal=0\.0 doesn't go with against"),
        ({"off_diagonal": 2.0}, r"off_diagonal=2\.0 doesn't go with against"),
        ({"squared": False}, "squared=False doesn't go with against"),
        ({"norm": "l2"}, "norm must be one of"),
        ({"norm": "max", "reduction": "entries"}, "reduction='entries' is the mean"),
    ],
)
def test_words_for_options_that_do_not_go_with_it(options, words):
    for penalty in (soft_orthogonality, soft_orthogonality_value_and_grad):
        with pytest.raises(ValueError, match=words):
            penalty([GOOD], against=[OTHER], **options)


def test_words_for_a_freed_storage(backend):
    freed = OTHER.clone()
    soft_orthogonality([GOOD], against=[freed])
    freed.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match=r"(against|others)\[0\] has no storage"):
        soft_orthogonality([GOOD], against=[freed])


def test_words_for_second_derivatives(kernels):
    leaf = GOOD.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(soft_orthogonality([leaf], against=[OTHER]), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiated once.*use_backend\('torch'\)"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([GOOD], [OTHER, OTHER], [1], 0, True), "one number of groups and one side for each of 2"),
        (([GOOD], [OTHER.double()], [1], 0, True), r"weights\[0\]: it and others\[0\] differ in dtype"),
        (([GOOD], [torch.randn(3, 5)], [1], 0, True), "differ in their number of columns"),
        (([GOOD], [OTHER], [1], 4, True), "norm: expected 0"),
    ],
)
def test_the_operator_checks_what_it_is_given(kernels, arguments, words):
    with pytest.raises(RuntimeError, match=words):
        ops.cross_gram(*arguments)


def test_where_a_backend_lacks_it_the_torch_backend_serves_with_a_warning(kernels, monkeypatch):
    monkeypatch.setattr(CpuBackend, "lacking", CudaBackend.lacking)
    As, Bs = pairs(shapes=[((3, 23), (5, 23))])  # shapes of their own: the choice is kept
    with pytest.warns(UserWarning, match=r"the backend 'cpu' lacks against: the torch backend serves"):
        check(As, Bs, "l1")


def test_the_reference_has_o_loras_term():
    """cmnfriend/O-LoRA src/uie_trainer_lora.py at 2a2e620: the sum of |A_old A_new^T|."""
    old, new = torch.randn(8, 32, dtype=torch.float64), torch.randn(8, 32, dtype=torch.float64)
    torch.testing.assert_close(reference.soft_orthogonality([new], against=[old], norm="l1"), (old @ new.T).abs().sum())


def test_the_difference_loss_is_the_mean_over_entries():
    """Of domain separation networks, tensorflow/models research/domain_adaptation/domain_separation/losses.py at fbdc808."""
    private, shared = (nn.functional.normalize(H - H.mean(0)) for H in torch.randn(2, 30, 8, dtype=torch.float64))
    value = soft_orthogonality([private.T], against=[shared.T], reduction="entries")
    torch.testing.assert_close(value, (private.T @ shared).square().mean())
