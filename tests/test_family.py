"""The family on the residual of soft orthogonality: norms, unit rows, both sides, a mean over entries."""

import itertools
import os
import sys
import warnings

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from truth import as_matrices, near_orthogonal, relative

from ortho_kernels import (
    OrthogonalityPenalty,
    doctor,
    reference,
    soft_orthogonality,
    soft_orthogonality_value_and_grad,
    srip,
    srip_value_and_grad,
    use_backend,
)
from ortho_kernels.backends import cpu, registry
from ortho_kernels.options import NORMS

OPERATORS = torch.ops.ortho_kernels
SHAPES, GROUPS = [(7, 12), (12, 7), (9, 9), (8, 3, 3, 3), (130, 70), (70, 130)], [1, 1, 1, 4, 1, 1]
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}
MEMBERS = list(itertools.product(NORMS, (None, "rows")))
LAYOUTS = {
    "channels_last": lambda: torch.randn(24, 8, 3, 3).to(memory_format=torch.channels_last),
    "channels_last, tall": lambda: torch.randn(64, 2, 3, 3).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(40, 30).T,
    "transposed, tall": lambda: torch.randn(30, 40).T,
    "every other row and column": lambda: torch.randn(80, 60)[::2, ::2],
    "sliced channels": lambda: torch.randn(24, 18, 3, 3)[:, ::2],
    "expanded": lambda: torch.randn(1, 12).expand(20, 12),
}


def made(dtype=torch.float32):
    """With a zero row, where the length of a row has no derivative."""
    weights = [(torch.randn(shape) / 3).to(dtype) for shape in SHAPES]
    weights[0][2] = weights[4][100] = 0
    return [weight.requires_grad_() for weight in weights]


def truth(weights, **options):
    """The reference's values and gradients, in float64."""
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    values = reference.soft_orthogonality(doubles, **options)
    return values.detach(), torch.autograd.grad(values.sum(), doubles)


def assert_close(given, expected, limit, floor=1e-2):
    """Relative in norm; `floor` is the size of the terms of which one that vanishes is the difference."""
    assert (given.double() - expected).norm() <= limit * (expected.norm() + floor)


def assert_true(weights, gradient_error=1e-5, value_error=1e-5, floor=1e-2, **options):
    values, gradients = truth(weights, **options)
    computed = soft_orthogonality(weights, **options)
    assert_close(computed.detach(), values, value_error)
    for gradient, weight, expected in zip(
        torch.autograd.grad(computed.sum(), weights), weights, gradients, strict=True
    ):
        assert gradient.dtype == weight.dtype
        assert gradient.shape == weight.shape
        assert_close(gradient, expected, gradient_error, floor)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize(("norm", "normalize"), MEMBERS)
def test_every_member(backend, norm, normalize, dtype):
    for side, (diagonal, off_diagonal) in itertools.product(
        ("small", "large", "rows", "cols"), ((1, 1), (0, 1), (0.25, 3))
    ):
        options = {"side": side, "diagonal": diagonal, "off_diagonal": off_diagonal}
        options |= {"norm": norm, "normalize": normalize, "groups": GROUPS, "reduction": "none"}
        value_error = 1e-12 if dtype is torch.float64 else 1e-5
        assert_true(made(dtype), ROUNDING[dtype], value_error, **options)


@pytest.mark.parametrize("normalize", [None, "rows"])
def test_both_sides(backend, normalize):
    weights, options = made(), {"groups": GROUPS, "reduction": "none", "normalize": normalize}
    assert_true(weights, side="both", **options)
    both, rows, cols = (soft_orthogonality(weights, side=side, **options) for side in ("both", "rows", "cols"))
    torch.testing.assert_close(both, rows + cols)


@pytest.mark.parametrize(("norm", "normalize"), [member for member in MEMBERS if member[0] != "max"])
def test_entries_are_what_a_mean_of_every_layer_gives(backend, norm, normalize):
    weights = made()
    for side in ("small", "large", "rows", "cols"):
        assert_true(weights, side=side, groups=GROUPS, norm=norm, normalize=normalize, reduction="entries")
    if (norm, normalize) == ("l1", None):
        eyes = [torch.eye(len(W)).double() for W in as_matrices(weights, GROUPS)]
        loop = sum((W @ W.T - eye).abs().mean() for W, eye in zip(as_matrices(weights, GROUPS), eyes, strict=True))
        value = soft_orthogonality(weights, side="rows", groups=GROUPS, norm="l1", reduction="entries")
        assert relative(value.detach(), loop) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(kernels, layout):
    for (norm, normalize), side in itertools.product(MEMBERS, ("rows", "cols")):
        weight = (LAYOUTS[layout]()).requires_grad_()
        floor = 1.0 if layout == "expanded" else 1e-2  # the gradient of equal rows vanishes where they have length 1
        assert_true([weight], floor=floor, norm=norm, normalize=normalize, side=side, off_diagonal=0.7)


@pytest.mark.parametrize(("norm", "normalize"), MEMBERS)
def test_near_orthogonality_keeps_its_digits(kernels, norm, normalize):
    weights = [near_orthogonal(*shape) for shape in [(64, 576), (128, 128), (3, 1000), (200, 500)]]
    if normalize:
        weights = [weight * torch.linspace(0.1, 3, len(weight))[:, None] for weight in weights]
    values, gradients = truth(weights, norm=norm, normalize=normalize, reduction="none")
    weights = [weight.requires_grad_() for weight in weights]
    computed = soft_orthogonality(weights, norm=norm, normalize=normalize, reduction="none")
    for value, expected in zip(computed.detach(), values, strict=True):
        assert relative(value, expected) < 1e-5
    # A sign is either right or wrong: of 20000 entries of the size of 1e-3 some are within the rounding of 0.
    limit = 2e-2 if norm == "l1" else 2e-5
    for gradient, expected in zip(torch.autograd.grad(computed.sum(), weights), gradients, strict=True):
        assert relative(gradient, expected) < limit


def test_short_rows_keep_their_digits(kernels):
    weight = (torch.randn(80, 200) * torch.logspace(-12, 3, 80)[:, None]).requires_grad_()
    value = soft_orthogonality([weight], normalize="rows")
    expected, (gradient,) = truth([weight], normalize="rows")
    assert relative(value.detach(), expected) < 1e-5
    (computed,) = torch.autograd.grad(value, weight)
    for row, true_row in zip(computed, gradient, strict=True):
        assert relative(row, true_row) < 1e-5


@pytest.mark.parametrize("norm", NORMS)
def test_rows_that_underflow_count_as_zero_rows(backend, norm):
    """An unused code of a codebook under weight decay goes through all lengths, down to zero."""
    for exponent, dtype in ((-160, torch.float64), (-20, torch.float32), (-22, torch.float32), (-30, torch.float32)):
        weight = torch.randn(6, 9, dtype=dtype)
        weight[1], weight[4] = 0, 0
        options = {"normalize": "rows", "norm": norm}
        for side in ("rows", "cols"):
            value, [gradient] = soft_orthogonality_value_and_grad([weight], side=side, **options)
            short = weight.clone()
            short[1], short[4] = torch.randn(2, 9, dtype=dtype) * 10.0**exponent
            assert short[1].any()
            same, [own] = soft_orthogonality_value_and_grad([short], side=side, **options)
            torch.testing.assert_close(same, value)
            torch.testing.assert_close(own, gradient)
        value = soft_orthogonality([short], against=[weight], **options)
        torch.testing.assert_close(value, soft_orthogonality([weight], against=[weight], **options))


def test_rows_whose_squares_overflow_are_nan(backend):
    weight = torch.full((2, 9), 1e25)
    assert soft_orthogonality([weight], side="rows", normalize="rows").isnan()
    assert soft_orthogonality([weight], side="cols", normalize="rows").isnan()
    assert soft_orthogonality([weight], against=[torch.ones(3, 9)], normalize="rows").isnan()


def test_the_length_of_a_row_has_no_gradient(backend):
    for shape, norm in itertools.product([(5, 9), (9, 5), (300, 20)], NORMS):
        weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(soft_orthogonality([weight], normalize="rows", norm=norm), weight)
        assert ((gradient * weight).sum(dim=1).abs() <= 1e-12 * (1 + gradient.norm() * weight.norm())).all()


@pytest.mark.parametrize("normalize", [None, "rows"])
@pytest.mark.parametrize("norm", NORMS)
def test_zero_matrices_and_tiny_ones(backend, norm, normalize):
    weights = [torch.zeros(4, 6), torch.zeros(6, 4), torch.eye(4, 6), torch.eye(5), torch.zeros(1, 1)]
    weights += [torch.full((1, 1), 0.5), torch.ones(1, 5), torch.ones(5, 1)]
    weights = [weight.requires_grad_() for weight in weights]
    for side in ("rows", "cols"):
        options = {"norm": norm, "normalize": normalize, "side": side, "reduction": "none"}
        assert_true(weights, 1e-6, 1e-6, floor=1.0, **options)
        gradients = torch.autograd.grad(soft_orthogonality(weights, **options).sum(), weights)
        assert all((gradients[zero] == 0).all() for zero in (0, 1, 4))


def test_no_weights_and_no_entries(backend):
    for norm, reduction in itertools.product(NORMS, ("sum", "mean", "none")):
        assert soft_orthogonality([], norm=norm, reduction=reduction).sum() == 0
    assert soft_orthogonality([], reduction="entries") == 0
    for (norm, normalize), shape in itertools.product(MEMBERS, [(0, 5), (5, 0)]):
        weight = torch.zeros(shape)
        expected = reference.soft_orthogonality([weight], norm=norm, normalize=normalize)
        value = soft_orthogonality([weight], norm=norm, normalize=normalize)
        torch.testing.assert_close(value, expected)
    assert soft_orthogonality([torch.zeros(0, 5)], reduction="entries") == 0


def test_of_equal_entries_the_first_gets_the_gradient(backend):
    """In the lower triangle, row by row."""
    weight = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0, 1], [0, -0.5, 0]], requires_grad=True)
    value = soft_orthogonality([weight], norm="max", diagonal=0.0, side="rows")
    value.backward()
    expected = torch.zeros(4, 3)  # of R_20, before R_31
    expected[2], expected[0] = weight[0].detach(), weight[2].detach()
    assert value == 0.5
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("norm", "normalize"), MEMBERS)
def test_nan_and_inf_come_out(backend, norm, normalize, bad):
    for shape in [(40, 70), (70, 40), (1, 3)]:
        weight = torch.randn(shape)
        weight[-1, 2] = bad
        weight.requires_grad_()
        values = soft_orthogonality([torch.eye(5), weight], norm=norm, normalize=normalize, reduction="none")
        assert abs(values[0]) <= 1e-6
        assert not values[1].isfinite()
        (gradient,) = torch.autograd.grad(values[1], weight)
        assert not gradient.isfinite().all()


@pytest.mark.parametrize("squared", [True, False])
def test_squared_goes_with_unit_rows(backend, squared):
    assert_true(made(), groups=GROUPS, normalize="rows", squared=squared, diagonal=0.5, reduction="none")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(2, 40)), min_size=1, max_size=4),
    side=st.sampled_from(["small", "large", "rows", "cols"]),
    norm=st.sampled_from(NORMS),
    normalize=st.sampled_from([None, "rows"]),
    factors=st.sampled_from([(1.0, 1.0), (0.0, 1.0), (2.0, 0.5), (1.0, 0.0)]),
    seed=st.integers(0, 1000),
)
def test_any_shapes(kernels, shapes, side, norm, normalize, factors, seed):
    torch.manual_seed(seed)
    weights = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    options = {"side": side, "norm": norm, "normalize": normalize, "diagonal": factors[0], "off_diagonal": factors[1]}
    assert_true(weights, 1e-9, 1e-11, **options)  # the diagonal of cosines alone is 0, or rounding


@pytest.mark.parametrize(("norm", "normalize"), MEMBERS)
def test_value_and_grad(backend, norm, normalize):
    weights = made()
    for side, reduction in itertools.product(("small", "large"), ("sum", "mean", "entries", "none")):
        if reduction == "entries" and norm == "max":
            continue
        options = {"groups": GROUPS, "norm": norm, "normalize": normalize, "side": side, "reduction": reduction}
        value = soft_orthogonality(weights, **options)
        expected = [3 * gradient for gradient in torch.autograd.grad(value.sum(), weights)]
        alone, gradients = soft_orthogonality_value_and_grad(weights, scale=3.0, **options)
        torch.testing.assert_close(alone, value.detach())
        for gradient, other in zip(gradients, expected, strict=True):
            assert_close(gradient, other, 1e-5)
        targets = [torch.ones_like(weight) for weight in weights]
        targets[1] = None
        soft_orthogonality_value_and_grad(weights, scale=3.0, accumulate_into=targets, **options)
        for target, gradient in zip(targets, expected, strict=True):
            if target is not None:
                assert_close(target - 1, gradient, 1e-5, floor=target.numel() ** 0.5)


def test_value_and_grad_of_both_sides(backend):
    weights = made()
    for squares in (True, False):
        side = "both" if squares else "large"
        options = {"groups": GROUPS, "side": side, "squared": squares, "normalize": "rows"}
        value = soft_orthogonality(weights, **options)
        alone, gradients = soft_orthogonality_value_and_grad(weights, **options)
        torch.testing.assert_close(alone, value.detach())
        torch.testing.assert_close(gradients, list(torch.autograd.grad(value, weights)), rtol=1e-4, atol=1e-6)


# The operators


@pytest.mark.parametrize(("norm", "normalize"), MEMBERS)
def test_gradcheck(backend, norm, normalize):
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(4, 7), (7, 4), (4, 2, 2)]]
    for side in ("rows", "cols"):
        options = {"norm": norm, "normalize": normalize, "side": side, "diagonal": 0.5, "reduction": "none"}
        assert torch.autograd.gradcheck(lambda *w, o=options: soft_orthogonality(w, groups=[1, 1, 2], **o), leaves)


@pytest.mark.parametrize("name", ["residual_norm", "unit_rows_norm"])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck(kernels, name, requires_grad):
    given = [torch.randn(shape, requires_grad=requires_grad) for shape in [(6, 3, 3, 3), (12, 5), (5, 12)]]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    arguments = (given, [2, 1, 1], [0, 1, 0], NORMS.index("l21"), 1.0, 0.5, requires_grad)
    torch.library.opcheck(getattr(OPERATORS, name).default, arguments, test_utils=tests)
    if requires_grad:
        return
    for accumulate in (True, False):
        gradients = [torch.randn_like(given[0]), torch.randn_like(given[2])]
        triangles = torch.randn(2 * 6 + 15 + 15)
        arguments = (torch.randn(4), given, [2, 1, 1], [0, 1, 0], triangles, 0, gradients, [1, 0, 1], accumulate)
        torch.library.opcheck(OPERATORS.unit_rows_norm_backward.default, arguments, test_utils=tests)


@pytest.mark.parametrize(
    "options",
    [{"norm": "l1"}, {"norm": "l21", "normalize": "rows"}, {"reduction": "entries"}, {"side": "both"}],
    ids=str,
)
def test_compile_fullgraph(kernels, options):
    leaves = made()
    compiled = torch.compile(lambda *w: soft_orthogonality(w, **options), fullgraph=True, backend="aot_eager")
    value, plain = compiled(*leaves), soft_orthogonality(leaves, **options)
    torch.testing.assert_close(value, plain)
    for pair in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(plain, leaves), strict=True):
        torch.testing.assert_close(*pair)


def test_threads_do_not_change_a_bit(kernels):
    leaves = [torch.randn(shape, requires_grad=True) for shape in [(700, 300), (64, 64, 3, 3), (33, 5), (3000, 40)]]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found = []
            for (norm, normalize), side in itertools.product(MEMBERS, ("rows", "small")):
                values = soft_orthogonality(leaves, norm=norm, normalize=normalize, side=side, reduction="none")
                found += [values, *torch.autograd.grad(values.sum(), leaves)]
            results.append(found)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_warm_call_takes_few_steps(kernels):
    weights, steps, options = [torch.randn(8, 8, requires_grad=True)] * 9, [], {"norm": "l21", "normalize": "rows"}
    for _ in range(2):
        soft_orthogonality(weights, **options)

    def record(frame, event, argument):
        if event == "call" and f"{os.sep}ortho_kernels{os.sep}" in frame.f_code.co_filename:
            steps.append(frame.f_code.co_name)

    sys.setprofile(record)
    try:
        soft_orthogonality(weights, **options)
    finally:
        sys.setprofile(None)
    assert len(steps) <= 25, steps


# Who serves


@pytest.fixture
def lacking(monkeypatch):
    """The CPU's kernels without the norms, and nobody warned yet."""
    if registry.reason_against("cpu", "cpu") is not None:
        pytest.skip(registry.reason_against("cpu", "cpu"))
    monkeypatch.setattr(cpu.CpuBackend, "lacking", ("norm", "normalize"))
    monkeypatch.setattr(registry, "_warned", set())


def test_what_a_backend_lacks_the_torch_backend_serves_with_one_warning(lacking):
    weights = [torch.randn(3, 11), torch.randn(5, 13)]  # shapes of their own: the choice is kept
    with use_backend("cpu"):
        with pytest.warns(UserWarning, match=r"the backend 'cpu' lacks norm='l1': the torch backend serves.*doctor"):
            value = soft_orthogonality(weights, norm="l1")
        with pytest.warns(UserWarning, match="lacks normalize='rows'"):
            soft_orthogonality(weights, normalize="rows")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            soft_orthogonality(weights, norm="l1")
            soft_orthogonality([torch.randn(7, 17)], norm="l1", side="cols")
            soft_orthogonality(weights, side="both")
            soft_orthogonality_value_and_grad(weights, norm="l1")
    with use_backend("torch"):
        assert torch.equal(value, soft_orthogonality(weights, norm="l1"))


def test_a_compiled_call_warns_too(lacking):
    compiled = torch.compile(lambda w: soft_orthogonality([w], norm="l21"), fullgraph=True, backend="aot_eager")
    with pytest.warns(UserWarning, match="the backend 'cpu' lacks norm='l21'"):
        compiled(torch.randn(4, 19))


def test_the_doctor_says_what_is_lacking(capsys):
    doctor.main()
    text = capsys.readouterr().out
    lacking = "norm, normalize, against, convolution_orthogonality, extreme_eigenvalues"
    for backend in ("cuda", "triton"):
        row = f"  {backend + ' lacks':16} {lacking}: the torch backend serves these, with a warning"
        assert row in text
    assert "cpu lacks" not in text


# The class


def test_the_class_takes_the_options(backend):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(), nn.Linear(40, 5))
    options = {"norm": "l21", "normalize": "rows", "off_diagonal": 2.0}
    penalty = OrthogonalityPenalty(model, gamma=0.1, **options)
    weights, groups = [model[0].weight, model[1].weight, model[3].weight], [1, 4, 1]
    value = 0.1 * soft_orthogonality(weights, groups=groups, **options)
    torch.testing.assert_close(penalty(), value)
    gradients = torch.autograd.grad(value, weights)
    torch.testing.assert_close(penalty.accumulate_gradients(), value.detach())
    for weight, gradient in zip(weights, gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    assert "off_diagonal=2.0, norm='l21', normalize='rows'" in repr(penalty)
    assert sum(row.value for row in penalty.report()) == pytest.approx(10 * value.item(), rel=1e-5)
    both = OrthogonalityPenalty(model, gamma=1.0, side="both")
    assert sum(row.value for row in both.report()) == pytest.approx(both().item(), rel=1e-5)


# What does not go together


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "l2"}, "norm must be one of 'fro', 'l1', 'l21', 'max'; got 'l2'"),
        ({"normalize": "cols"}, "normalize must be one of None, 'rows'; got 'cols'"),
        ({"normalize": True}, "normalize must be one of None, 'rows'; got True"),
        ({"norm": "l1", "squared": False}, "squared=False goes with norm='fro' alone; got norm='l1'"),
        ({"side": "both", "norm": "l1"}, "side='both' goes with norm='fro'.*got norm='l1'"),
        ({"side": "both", "squared": False}, "side='both' goes with .*squared=True.*squared=False"),
        ({"side": "both", "diagonal": 0.0}, "side='both' goes with .*equal diagonal and off_diagonal.*diagonal=0.0"),
        ({"reduction": "entries", "norm": "max"}, "reduction='entries' .* norm='max' takes one entry"),
        ({"reduction": "entries", "squared": False}, "reduction='entries' .* squared=False takes the root"),
        ({"reduction": "entries", "side": "both"}, "reduction='entries' .* side='both' adds Grams of two sizes"),
        ({"reduction": "all"}, "reduction must be one of 'sum', 'mean', 'entries', 'none'; got 'all'"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    for penalty in (soft_orthogonality, soft_orthogonality_value_and_grad):
        with pytest.raises(ValueError, match=words):
            penalty([torch.eye(3)], **options)


def test_srip_has_no_entries_and_no_both_sides():
    for penalty in (srip, srip_value_and_grad):
        with pytest.raises(ValueError, match="reduction must be one of 'sum', 'mean', 'none'; got 'entries'"):
            penalty([torch.eye(3)], reduction="entries")
        with pytest.raises(ValueError, match="side must be one of 'small', 'large', 'rows', 'cols'; got 'both'"):
            penalty([torch.eye(3)], side="both")
