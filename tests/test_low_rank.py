"""Soft orthogonality of products of two factors, against the product that is formed in float64."""

import pytest
import torch
from truth import near_orthogonal, relative, so_from_spectrum

from ortho_kernels import low_rank_soft_orthogonality, reference, soft_orthogonality

SHAPES = [(12, 4, 20), (20, 4, 12), (6, 6, 6), (9, 1, 5), (1, 1, 1)]  # out, r, in


def pair(out, r, width, dtype=torch.float64, scale=1.0):
    B, A = torch.randn(out, r, dtype=torch.float64) * scale, torch.randn(r, width, dtype=torch.float64) / scale
    return B.to(dtype).requires_grad_(), A.to(dtype).requires_grad_()


def true_values(products, scales):
    """From the singular values of the products, the r largest of each."""
    values = []
    for (B, A), scale in zip(products, scales, strict=True):
        M = (B.detach().double().flatten(1) * scale) @ A.detach().double().flatten(1)
        values.append(so_from_spectrum(M) - (min(M.shape) - len(A)))
    return torch.stack(values)


def test_values_are_those_of_the_r_largest_singular_values():
    products = [pair(*shape) for shape in SHAPES]
    scales = [0.5, 2.0, 1.0, 0.25, 3.0]
    values = low_rank_soft_orthogonality(products, scale=scales, reduction="none")
    torch.testing.assert_close(values, true_values(products, scales))
    for reduction in ("sum", "mean", "none"):
        torch.testing.assert_close(
            low_rank_soft_orthogonality(products, scale=scales, reduction=reduction),
            reference.low_rank_soft_orthogonality(products, scale=scales, reduction=reduction),
        )


def test_so_of_the_product_has_a_constant_more_and_the_same_gradients():
    B, A = pair(12, 4, 20)
    own, formed = low_rank_soft_orthogonality([(B, A)]), soft_orthogonality([B @ A])
    torch.testing.assert_close(own + (12 - 4), formed)
    for given, true in zip(torch.autograd.grad(own, (B, A)), torch.autograd.grad(formed, (B, A)), strict=True):
        torch.testing.assert_close(given, true)


def test_a_diagonal_between_the_factors_has_a_gradient():
    (B, A), E = pair(7, 3, 5), torch.randn(3, dtype=torch.float64, requires_grad=True)
    own, formed = low_rank_soft_orthogonality([(B, A)], scale=E), soft_orthogonality([B @ torch.diag(E) @ A])
    torch.testing.assert_close(own + (5 - 3), formed)
    for given, true in zip(torch.autograd.grad(own, (B, E, A)), torch.autograd.grad(formed, (B, E, A)), strict=True):
        torch.testing.assert_close(given, true)


@pytest.mark.parametrize("diagonal", [False, True])
def test_first_and_second_derivatives(diagonal):
    factors = [factor for shape in [(5, 2, 4), (5, 2, 4), (4, 3, 3)] for factor in pair(*shape)]
    scales = [torch.rand(r, dtype=torch.float64) if diagonal else 0.5 for r in (2, 2, 3)]

    def value(*factors):
        return low_rank_soft_orthogonality(list(zip(factors[::2], factors[1::2], strict=True)), scale=scales)

    assert torch.autograd.gradcheck(value, factors)
    assert torch.autograd.gradgradcheck(value, factors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "noise"), [((300, 8, 200), 1e-3), ((150, 64, 400), 1e-4)])
def test_near_orthogonality_nothing_is_lost(dtype, shape, noise):
    """Of the values of the factors as they are: what bfloat16 rounds off before is no concern here."""
    out, r, width = shape
    products = [
        (near_orthogonal(out, r, noise=noise, dtype=dtype), near_orthogonal(r, width, noise=noise, dtype=dtype))
        for _ in range(3)
    ]
    leaves = [factor.requires_grad_() for product in products for factor in product]
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    value = low_rank_soft_orthogonality(products)
    truth = reference.low_rank_soft_orthogonality(list(zip(doubles[::2], doubles[1::2], strict=True)))
    assert value.dtype is torch.float32
    assert relative(value.detach(), truth.detach()) < 1e-6
    kept = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}[dtype]  # a gradient has the factor's dtype
    for given, true in zip(torch.autograd.grad(value, leaves), torch.autograd.grad(truth, doubles), strict=True):
        assert given.dtype is dtype
        assert relative(given, true) < kept


def test_the_product_is_never_formed():
    """It would take 160 GB."""
    B, A = near_orthogonal(200_000, 2, noise=0), near_orthogonal(2, 200_000, noise=0)
    assert low_rank_soft_orthogonality([(B, 2 * A)]).item() == pytest.approx(2 * 9, rel=1e-6)


def test_what_one_factor_has_in_scale_the_other_may_lack():
    """Only the product counts: factors far from orthogonal, whose product is near it."""
    B, A = near_orthogonal(40, 4, noise=1e-3), near_orthogonal(4, 30, noise=1e-3)
    products = [(B * 256, A / 256)]
    value = low_rank_soft_orthogonality(products)
    assert relative(value, true_values(products, [1.0]).sum()) < 1e-6


def test_at_lora_s_start_the_value_is_the_rank_and_both_gradients_vanish():
    B, A = torch.zeros(8, 3, requires_grad=True), torch.randn(3, 9, requires_grad=True)
    value = low_rank_soft_orthogonality([(B, A)], scale=2.0)
    assert value.item() == 3.0
    for gradient in torch.autograd.grad(value, (B, A)):
        assert not gradient.any()


def test_a_convolution_s_factors():
    B, A = torch.randn(8, 3, 1, 1), torch.randn(3, 4, 3, 3)
    kernel = torch.einsum("or,rikl->oikl", B[:, :, 0, 0], A)
    torch.testing.assert_close(low_rank_soft_orthogonality([(B, A)]) + (8 - 3), soft_orthogonality([kernel]))


def test_autocast_does_not_touch_it():
    B, A = pair(12, 4, 20, torch.float32)

    def value_and_gradients():
        value = low_rank_soft_orthogonality([(B, A)])
        return value, *torch.autograd.grad(value, (B, A))

    expected = value_and_gradients()
    with torch.autocast("cpu", torch.bfloat16):
        given = value_and_gradients()
    assert all(map(torch.equal, given, expected))


def test_compiled_it_is_one_graph():
    products = [pair(12, 4, 20, torch.float32), pair(12, 4, 20, torch.float32), pair(9, 2, 7, torch.float32)]
    compiled = torch.compile(low_rank_soft_orthogonality, fullgraph=True, backend="aot_eager")
    value = compiled(products, scale=0.5)
    torch.testing.assert_close(value, low_rank_soft_orthogonality(products, scale=0.5))
    value.backward()
    gradient = products[0][0].grad.clone()
    products[0][0].grad = None
    low_rank_soft_orthogonality(products, scale=0.5).backward()
    torch.testing.assert_close(products[0][0].grad, gradient)


def test_vmap():
    B, A = torch.randn(5, 6, 2), torch.randn(5, 2, 4)
    values = torch.func.vmap(lambda B, A: low_rank_soft_orthogonality([(B, A)]))(B, A)
    torch.testing.assert_close(values, low_rank_soft_orthogonality(list(zip(B, A, strict=True)), reduction="none"))


def test_no_products_add_up_to_zero_and_nan_propagates():
    assert low_rank_soft_orthogonality([]) == 0 == low_rank_soft_orthogonality(iter([]))
    B, A = torch.randn(4, 2), torch.full((2, 4), torch.nan)
    assert low_rank_soft_orthogonality([(B, A)]).isnan()


def test_pairs_may_come_from_an_iterator():
    Bs, As = torch.randn(3, 6, 2), torch.randn(3, 2, 5)
    expected = low_rank_soft_orthogonality(list(zip(Bs, As, strict=True)))
    assert low_rank_soft_orthogonality(zip(Bs, As, strict=True)) == expected > 0


@pytest.mark.parametrize(
    ("products", "options", "message"),
    [
        ([torch.ones(3, 2)], {}, r"products must be a list of pairs \(B, A\)"),
        (
            [(torch.ones(3, 2), torch.ones(3, 4))],
            {},
            r"B of products\[0\] is a 3 x 2 matrix, A of products\[0\] a 3 x 4",
        ),
        ([(torch.ones(2, 4), torch.ones(4, 2))], {}, r"the rank 4 is more than the order 2 of their product"),
        ([(torch.ones(3, 2).int(), torch.ones(2, 4))], {}, r"B of products\[0\] has dtype torch.int32"),
        ([(torch.ones(3, 2), torch.ones(2))], {}, r"A of products\[0\] has shape \(2,\)"),
        ([(torch.ones(3, 2), torch.ones(2, 4))], {"scale": [1.0, 2.0]}, "got 2 for 1 products"),
        (
            [(torch.ones(3, 2), torch.ones(2, 4))],
            {"scale": torch.ones(3)},
            r"shape \(3,\); expected a number or \(2,\)",
        ),
        ([(torch.ones(3, 2), torch.ones(2, 4))], {"scale": ["two"]}, "must be a number or a real tensor"),
        ([(torch.ones(3, 2), torch.ones(2, 4))], {"scale": None}, r"scale of products\[0\] must be .*got None"),
        ([(torch.ones(3, 2), torch.ones(2, 4))], {"scale": 1j * torch.ones(2)}, "must be a number or a real tensor"),
        (None, {}, r"products must be a list of pairs \(B, A\)"),
        ([(torch.ones(3, 2), torch.ones(2, 4))], {"reduction": "entries"}, "reduction must be one of"),
    ],
)
def test_bad_input(products, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        low_rank_soft_orthogonality(products, **options)
