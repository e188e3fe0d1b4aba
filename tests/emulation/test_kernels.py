"""The CUDA kernels, emulated, against their definitions in float64: what it shows holds for numbers, not for speed."""

import pytest
import successions
import torch
from cases import (
    CASES,
    ROUNDING,
    SUCCESSIONS,
    caller_indices,
    check_soft_orthogonality,
    check_srip,
    made,
    run_in_all_ways,
)
from forms import in_one_form, in_their_forms
from truth import residual

from ortho_kernels import reference

f64, f32, bf16, f16 = torch.float64, torch.float32, torch.bfloat16, torch.float16


LONGEST = [f"{kernel}, float32, every kind after every other" for kernel in ("residual", "product")]


@in_their_forms(CASES, lambda name: pytest.mark.slow if name in LONGEST else ())
def test_all_schedules_agree_and_are_right(emulator, name):
    run_in_all_ways(emulator, name)


@pytest.mark.parametrize(
    ("name", "kinds", "ruled_out"),
    [
        ("residual, float64", 8, 0),
        ("residual, float32", 10, 0),
        ("residual, bfloat16", 8, 28),
        ("product, float32", 8, 0),
        ("product, bfloat16", 4, 0),
        ("product, spreading", 2, 0),
        ("srip, passes", 6, 0),
        ("srip, rows", 2, 0),
    ],
)
def test_every_kind_of_item_follows_every_other_in_a_block(name, kinds, ruled_out):
    kernel = successions.KERNELS[name]
    wanted = successions.wanted(kernel)
    met = set().union(*(successions.met(kernel, *drawn) for drawn in successions.lists_of(kernel)))
    assert len(successions.kinds(kernel)) == kinds
    assert met >= wanted
    assert len(wanted) == kinds**2 - ruled_out


@pytest.mark.parametrize("resident_blocks", [1, 2])
def test_a_block_that_runs_alone_takes_all_items(emulator, resident_blocks):
    """The successions are made for it; blocks that run at the same time share the items."""
    emulator.run_as(resident_blocks=resident_blocks)
    matrices = [made(5, 32, f32) for _ in range(4)]
    _, residuals = emulator.soft_orthogonality(matrices)
    assert emulator.working_blocks() == resident_blocks
    emulator.soft_orthogonality_backward(torch.ones(4), matrices, residuals)
    assert emulator.working_blocks() == resident_blocks


@pytest.mark.parametrize("dtype", [f64, f32, bf16, f16], ids=str)
@pytest.mark.parametrize("layout", ["along", "across"])
@pytest.mark.parametrize("shape", [(64, 147), (1, 9), (9, 1), (64, 64)], ids=str)
@in_one_form
def test_small_shapes_on_both_sides(emulator, shape, layout, dtype):
    matrix = made(*shape, dtype, layout)
    check_soft_orthogonality(emulator, [matrix], 0.5, 2.0)
    check_srip(emulator, [matrix])


@pytest.mark.parametrize("dtype", [f32, bf16, f16], ids=str)
@pytest.mark.parametrize("layout", ["along", "across"])
def test_a_shape_of_several_tiles(emulator, layout, dtype):
    check_soft_orthogonality(emulator, [made(130, 70, dtype, layout)], 0.5, 2.0)


@pytest.mark.parametrize("multiprocessors", [1, 5, 200])
def test_any_size_of_gpu_gives_so_the_same_to_rounding(emulator, multiprocessors):
    emulator.multiprocessors = multiprocessors
    check_soft_orthogonality(emulator, [made(70, 800, f32), made(20, 30, f32)])


@in_one_form
@pytest.mark.parametrize("multiprocessors", [1, 5, 200])
def test_any_size_of_gpu_gives_srip_the_same_to_rounding(emulator, multiprocessors):
    emulator.multiprocessors = multiprocessors
    check_srip(emulator, [made(70, 800, f32), made(20, 30, f32)])


@in_one_form
def test_near_orthogonality_small_orders_keep_their_digits(emulator):
    for order in (16, 64):
        matrix = torch.linalg.qr(torch.randn(4 * order, order, dtype=f64))[0].T + 1e-5 * torch.randn(order, 4 * order)
        matrix = matrix.float().contiguous()
        (value,), _ = emulator.soft_orthogonality([matrix])
        truth = residual(matrix.double()).square().sum()
        assert abs(value - truth) <= 1e-5 * truth


@in_one_form
def test_one_launch_each_way_for_all_matrices_of_a_model(emulator):
    matrices = [made(3 + i % 5, 4 + i % 7, f32) for i in range(60)]
    check_soft_orthogonality(emulator, matrices)
    assert emulator.launches() == ["gram_residual", "residual_product"]
    check_srip(emulator, matrices)
    assert emulator.launches() == ["power_iteration", "rank_update"]


def test_residuals_are_spread_for_the_backward_of_all_but_small_matrices(emulator):
    check_soft_orthogonality(emulator, [made(70, 130, f32), made(5, 9, f32)])
    assert emulator.launches() == ["gram_residual", "spread_residuals", "residual_product"]


@in_one_form
def test_more_matrices_than_one_launch_takes(emulator):
    matrices = [made(1 + i % 3, 2 + i % 2, f32) for i in range(700)]
    check_soft_orthogonality(emulator, matrices)
    assert emulator.launches() == ["gram_residual"] * 2 + ["residual_product"] * 3
    check_srip(emulator, matrices)
    assert emulator.launches() == ["power_iteration"] * 3 + ["rank_update"] * 3


@in_one_form
def test_without_cooperative_launch_each_phase_is_a_launch(emulator):
    matrices = [made(70, 45, f32), made(20, 30, f32, "across")]
    one_launch = check_srip(emulator, matrices)
    emulator.launches()
    emulator.cooperative = False
    for given, expected in zip(check_srip(emulator, matrices), one_launch, strict=True):
        assert torch.equal(given, expected)
    # Two a pass over W, of which the adjoint takes one more than there are applications; the start and the end.
    assert emulator.launches() == ["power_iteration"] * (2 * 3 + 2) + ["rank_update"]


@pytest.mark.parametrize("shape", [(70, 45), (70, 145)], ids=str)
def test_residuals_are_not_kept_unless_asked_for(emulator, shape):
    matrix = made(*shape, f32)
    kept, _ = emulator.soft_orthogonality([matrix])
    values, residuals = emulator.soft_orthogonality([matrix], keep=False)
    assert torch.equal(values, kept)
    assert residuals.numel() == 0


@in_one_form
def test_vectors_are_not_kept_unless_asked_for(emulator):
    matrix = made(70, 45, f32)
    start = torch.randn(70)
    kept, _ = emulator.srip([matrix], start, 3)
    values, vectors = emulator.srip([matrix], start, 3, keep=False)
    assert torch.equal(values, kept)
    assert vectors.numel() == 0


@in_one_form
def test_a_gradient_may_have_other_strides_than_its_weight(emulator):
    matrix = made(20, 30, f32)
    _, residuals = emulator.soft_orthogonality([matrix])
    _, vectors = emulator.srip([matrix], torch.randn(20))
    one = torch.ones(1)
    for backward, kept, rest in (
        (emulator.soft_orthogonality_backward, residuals, ()),
        (emulator.srip_backward, vectors, (2,)),
    ):
        (plain,) = backward(one, [matrix], kept, *rest)
        (turned,) = backward(one, [matrix], kept, *rest, gradients=[torch.empty(30, 20).t()])
        assert torch.equal(plain, turned)


@in_their_forms(name for name in CASES if name not in {*SUCCESSIONS, "start vectors"})
def test_gradients_are_added_to_what_is_there(emulator, name):
    """Of every layout, storage format and precision; what is not wanted stays as it is."""
    emulator.run_as("random", copies_arrive_late=True)
    CASES[name](emulator, accumulate=True)


@in_one_form
@pytest.mark.parametrize(
    "matrix", [torch.zeros(6, 6), torch.eye(6), torch.eye(6, 9)], ids=["zero", "identity", "orthogonal"]
)
def test_zero_residuals_and_zero_matrices_have_finite_values(emulator, matrix):
    values, residuals = emulator.soft_orthogonality([matrix])
    (gradient,) = emulator.soft_orthogonality_backward(values, [matrix], residuals)
    assert values.isfinite().all()
    assert not gradient.any()  # R W = 0 in all three
    values, vectors = emulator.srip([matrix], torch.randn(6))
    (gradient,) = emulator.srip_backward(values, [matrix], vectors, 2)
    assert values.isfinite().all()
    assert not gradient.any()


@in_one_form
def test_a_zero_start_gives_zero(emulator):
    values, vectors = emulator.srip([made(70, 30, f32)], torch.zeros(70))
    assert values.item() == 0
    assert not vectors.any()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_and_inf_come_out_of_products_of_terms(emulator, poison):
    matrices = [made(66, 132, f32), made(66, 132, f32), made(66, 132, bf16)]
    for matrix in matrices[1:]:
        matrix[65, 3] = poison
    values, residuals = emulator.soft_orthogonality(matrices)
    gradients = emulator.soft_orthogonality_backward(torch.ones(3), matrices, residuals)
    assert values.isfinite().tolist() == [True, False, False]
    assert [bool(g.isfinite().all()) for g in gradients] == [True, False, False]


@in_one_form
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_nan_and_inf_come_out(emulator, poison):
    matrices = [made(5, 6, f32), made(80, 90, f32)]
    matrices[1][79, 3] = poison
    values, residuals = emulator.soft_orthogonality(matrices)
    gradients = emulator.soft_orthogonality_backward(torch.ones(2), matrices, residuals)
    assert values.isfinite().tolist() == [True, False]
    assert [bool(g.isfinite().all()) for g in gradients] == [True, False]
    values, vectors = emulator.srip(matrices, torch.randn(85))
    gradients = emulator.srip_backward(torch.ones(2), matrices, vectors, 2)
    assert values.isfinite().tolist() == [True, False]
    assert [bool(g.isfinite().all()) for g in gradients] == [True, False]


@in_one_form
@pytest.mark.parametrize("dtype", [bf16, f16], ids=str)
def test_every_half_number_is_read_exactly_and_rounded_as_torch_does(emulator, dtype):
    patterns = torch.arange(-(2**15), 2**15, 17, dtype=torch.int32).to(torch.int16).view(dtype)
    column = patterns[patterns.isfinite()].reshape(1, -1)
    column = column[:, column[0].float().abs() < 1e4]
    # A rank of one: the gradient is 4 (|w|^2 - 1) w, with a factor that tf32 holds exactly.
    factor = torch.tensor([0.5])
    (gradient,) = emulator.soft_orthogonality_backward(torch.ones(1), [column], factor)
    assert torch.equal(gradient, (4 * factor * column.float()).to(dtype))


@in_one_form
@pytest.mark.parametrize("count", [0, 1, 257])
def test_start_vectors_take_one_launch(emulator, count):
    keys, step = torch.arange(count), torch.tensor(7)
    emulator.launches()
    drawn, defined = emulator.start_vectors(keys, step), reference.start_vectors(keys, step)
    torch.testing.assert_close(drawn, defined, rtol=2e-6, atol=0)
    assert emulator.launches() == ["draw_vectors"] * (count > 0)


@in_one_form
def test_starts_of_any_size_give_the_same(emulator):
    matrices, start = [made(70, 30, f32)], torch.randn(70)
    values, _ = emulator.srip(matrices, start)
    for size in (1e-30, 1e30):
        scaled, _ = emulator.srip(matrices, size * start)
        torch.testing.assert_close(scaled, values, rtol=4 * ROUNDING[f32], atol=0)


def test_a_permutation_numbers_a_channels_last_kernel():
    c, s = 3, 4
    index = torch.arange(c * s).view(c, s).t().flatten()  # memory goes through the channels first
    assert torch.equal(caller_indices([(s, 1), (c, s)]), index)


@in_one_form
def test_too_long_a_gradient_is_refused_by_name(emulator):
    matrix = made(2, 3, f32)
    vectors = torch.zeros(2 * 5000 * 2)
    with pytest.raises(RuntimeError, match="5000 iterations"):
        emulator.srip_backward(torch.ones(1), [matrix], vectors, 5000)
