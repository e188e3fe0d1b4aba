"""What each launch does, as tables: every entry once, offsets beyond 2^31, thousands of matrices. No triton, no GPU."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from ortho_kernels.backends.triton import heuristics
from ortho_kernels.backends.triton.matrices import Layout, Matrix, matrices_of
from ortho_kernels.backends.triton.plan import (
    COMBINED_ROWS,
    MOST_PARTS,
    NORM_ROWS,
    SPREAD_ROWS,
    TINY_ORDER,
    Kind,
    Plan,
    dense_order,
)  # fmt: skip
from ortho_kernels.backends.triton.records import StridedView

CONFIGURATION = heuristics.TABLE["sm_90"]
SHAPES = [(1, 1), (1, 900), (16, 16), (17, 40), (64, 147), (129, 5000), (300, 300), (512, 4608)]


def plan_for(weights, groups=None, sides=None, multiprocessors=132):
    count = len(weights)
    return Plan.of(weights, groups or [1] * count, sides or [0] * count, CONFIGURATION, multiprocessors)


def rows_of(plan):
    return [item for items in plan.residuals.items.values() for item in items]


@pytest.mark.parametrize("multiprocessors", [1, 100, 10_000])
def test_every_entry_of_every_triangle_is_in_one_tile_for_every_depth(multiprocessors):
    weights = [torch.empty(shape) for shape in SHAPES]
    plan = plan_for(weights, multiprocessors=multiprocessors)
    side = CONFIGURATION.residual_float32.rows
    found = [torch.zeros(n, n, dtype=torch.int64) for n, _ in SHAPES]
    slots = []
    for row in rows_of(plan):
        order, depth = SHAPES[row.matrix]
        length = row.end - row.begin
        assert 0 < length <= depth
        if row.kind == Kind.NORMS:
            chosen = torch.arange(order)[row.row : row.row + NORM_ROWS]
            found[row.matrix][chosen, chosen] += length
        else:
            size = TINY_ORDER if row.kind == Kind.TINY else side
            tile = found[row.matrix][row.row : row.row + size, row.column : row.column + size]
            i = torch.arange(row.row, row.row + len(tile))[:, None]
            j = torch.arange(row.column, row.column + tile.shape[1])
            tile += length * (j <= i if row.kind == Kind.TINY else j < i)
        if row.parts > 1:
            size = {Kind.TILE: side * side // 2, Kind.TINY: TINY_ORDER**2, Kind.NORMS: NORM_ROWS}[row.kind]
            slots.append((row.slot + row.part * size, size))
    for covered, (_, depth) in zip(found, SHAPES, strict=True):
        assert torch.equal(covered, torch.full_like(covered, depth).tril())
    slots.sort()  # parts lie apart, and within what is allocated
    assert all(a + size <= b for (a, size), (b, _) in pairwise(slots))
    assert not slots or sum(slots[-1]) <= plan.residuals.partial_sums
    blocks = {(row.block, row.matrix, row.row, row.column, row.kind) for row in rows_of(plan)}
    assert sorted(block[0] for block in blocks) == list(range(sum(plan.residuals.blocks_of)))


def test_few_multiprocessors_cut_less_and_partial_sums_are_bounded():
    weights = [torch.empty(1024, 20_000) for _ in range(4)]
    one, many = (plan_for(weights, multiprocessors=count) for count in (1, 132))
    assert len(rows_of(one)) < len(rows_of(many))
    assert many.residuals.partial_sums * 8 < 2 * 4 * 132 * 128 * 128 * 4 * 2


def test_products_and_updates_cover_the_gradients_that_are_wanted():
    weights = [torch.empty(shape) for shape in SHAPES]
    plan = plan_for(weights)
    wanted = [bool(i % 2) for i in range(len(SHAPES))]
    tile, width = CONFIGURATION.product_float32, CONFIGURATION.update.columns
    covered = [torch.zeros(shape, dtype=torch.int64) for shape in SHAPES]
    for matrix, row, column in plan.products(wanted, 0)[torch.float32]:
        covered[matrix][row : row + tile.rows, column : column + tile.columns] += 1
    for matrix, begin in plan.updates(wanted)[torch.float32]:
        covered[matrix][:, begin : begin + width] += 10
    for count, want in zip(covered, wanted, strict=True):
        assert (count == 11 * want).all()


def test_lower_triangles_are_spread_once_to_dense_matrices_that_lie_apart():
    weights = [torch.empty(shape) for shape in SHAPES]
    plan = plan_for(weights)
    wanted = [i != 2 for i in range(len(SHAPES))]
    covered = [torch.zeros(dense_order(n), dense_order(n), dtype=torch.int64) for n, _ in SHAPES]
    for matrix, row, column in plan.spreads(wanted)[torch.float32]:
        covered[matrix][row : row + SPREAD_ROWS, column : column + SPREAD_ROWS] += 1
        if row != column:
            covered[matrix][column : column + SPREAD_ROWS, row : row + SPREAD_ROWS] += 1
    for count, want in zip(covered, wanted, strict=True):
        assert (count == want).all()
    begins = [row.dense_offset for row in plan.rows]
    assert [a + len(count) ** 2 for a, count in zip(begins, covered, strict=True)] == [*begins[1:], plan.total_dense]
    assert plan.total_dense < 1.2 * sum(n * n for n, _ in SHAPES) + len(SHAPES) * 16 * 16


def test_passes_cover_the_depth_in_a_bounded_number_of_parts():
    plan = plan_for([torch.empty(3, 5), torch.empty(300, 70_000), torch.empty(2000, 64)])
    for index, matrix in enumerate(plan.matrices):
        bounds = sorted(item[1:4] for item in plan.passes()[torch.float32] if item.matrix == index)
        assert [b[0] for b in bounds] == [0, *(b[1] for b in bounds[:-1])]
        assert bounds[-1][1] == matrix.depth
        assert [b[2] for b in bounds] == list(range(len(bounds)))
        assert len(bounds) == plan.rows[index].parts <= MOST_PARTS
        assert plan.rows[index].squares == -(-matrix.order // COMBINED_ROWS)


def test_matrices_without_numbers_still_have_a_value():
    plan = plan_for([torch.empty(5, 0), torch.empty(0, 5)])
    assert sorted(item[:2] for item in plan.residuals.items[torch.float32]) == [(0, Kind.TINY), (1, Kind.TINY)]
    assert plan.products([True, True], 0) == {}
    assert [item[:2] for item in plan.combines()[torch.float32]] == [(0, 0), (1, 0)]


def test_offsets_beyond_32_bits():
    """Three matrices of 60,000 x 40,000: residuals of 1.8e9 entries each."""
    order, depth = 60_000, 40_000
    base = Matrix(0, torch.float32, order, depth, StridedView(0, depth, 1, Layout.DEPTH_MAJOR), None)
    matrices = [dataclasses.replace(base, weight=i) for i in range(3)]
    plan = Plan([], matrices, CONFIGURATION, 132)
    table = torch.tensor(plan.rows, dtype=torch.int64)
    assert [row.residual_offset for row in plan.rows] == [i * order * (order + 1) // 2 for i in range(3)]
    assert plan.rows[-1].residual_offset > 2**31
    assert table.max() == plan.rows[-1].dense_offset == 2 * order**2
    assert not plan.access[torch.float32].wide  # within a block


def test_thousands_of_matrices():
    weight = torch.empty(4096, 1, 3, 3)
    plan = plan_for([weight, weight], [4096, 2048], [0, 0])
    assert len(plan.matrices) == 6144
    assert len(rows_of(plan)) == 6144
    assert [row.offset for row in plan.rows] == [9 * i for i in range(4096)] + [18 * i for i in range(2048)]


def test_layouts():
    channels_last = torch.empty(64, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    for weight, groups, side, layout in (
        (torch.empty(64, 128), 1, 0, Layout.DEPTH_MAJOR),
        (torch.empty(64, 128), 1, 1, Layout.ORDER_MAJOR),
        (torch.empty(64, 147), 1, 0, Layout.STRIDED),
        (torch.empty(64, 128)[:, 1:65], 1, 0, Layout.STRIDED),  # begins beside a multiple of 16 bytes
        (torch.empty(64, 128)[::2], 1, 0, Layout.DEPTH_MAJOR),
        (torch.empty(64, 128)[:, ::2], 1, 0, Layout.STRIDED),
        (torch.empty(128, 64).t(), 1, 0, Layout.ORDER_MAJOR),
        (channels_last, 1, 0, Layout.DEPTH_MAJOR),
        (torch.empty(24, 5, 3, 3), 4, 0, Layout.STRIDED),
        (torch.empty(24, 4, 3, 3), 4, 0, Layout.DEPTH_MAJOR),
        (torch.empty(64, 12, dtype=torch.bfloat16), 1, 0, Layout.STRIDED),
        (torch.empty(64, 16, dtype=torch.bfloat16), 1, 0, Layout.DEPTH_MAJOR),
    ):
        _, matrices = matrices_of([weight], [groups], [side])
        assert {matrix.view.layout for matrix in matrices} == {layout}, (weight.shape, weight.stride(), side)
