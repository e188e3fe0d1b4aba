"""The planner of the GPU's launches: every number is worked on exactly once, in as few launches as arguments allow."""

import math

import pytest

from benchmarks import model_shapes

planner = pytest.importorskip("ortho_kernels._introspect", reason="no introspection").cuda

SHAPES = [(1, 1), (64, 147), (256, 256), (257, 300), (600, 5000), (0, 5), (5, 0), (3000, 3000), (64, 100_000)]
DTYPES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@pytest.fixture(params=[1, 82, 132], ids="{} multiprocessors".format)
def device(request):
    return planner.Device(request.param)


def up(a, b):
    return -(-a // b)


def consecutive(works, first, size):
    """Each work begins where the one before it ended; the end of the last."""
    end = 0
    for work in works:
        assert first(work) == end
        end += size(work)
    return end


@pytest.mark.parametrize("dtype", DTYPES)
def test_residual_items_cover_every_tile_and_the_whole_depth(device, dtype):
    (launch,) = planner.plan_residuals([(*shape, dtype) for shape in SHAPES], device)
    assert sorted(w.matrix for w in launch.work) == list(range(len(SHAPES)))
    assert consecutive(launch.work, lambda w: w.first_item, lambda w: w.tiles * w.parts) == launch.items
    for work in launch.work:
        order, depth = SHAPES[work.matrix]
        assert work.in_double == (dtype == "float64" or order <= 64)
        side = max(up(order, tile_side(work.in_double)), 1)
        assert work.tiles == side * (side + 1) // 2
        assert work.parts == max(up(depth, work.part_depth), 1)
        assert work.part_depth % planner.chunk_depth == 0
    assert [w.part_depth for w in launch.work] == sorted((w.part_depth for w in launch.work), reverse=True)
    slots = sum(w.tiles * w.parts * slot_bytes(SHAPES[w.matrix][0], w.in_double) for w in launch.work if w.parts > 1)
    assert launch.partial_bytes == slots
    assert 1 <= launch.blocks <= launch.items


def tile_side(in_double):
    return planner.narrow_tile if in_double else planner.wide_tile


def slot_bytes(order, in_double):
    """A slot holds a tile of float sums and its squared lengths, or of doubles the 8 x 8 blocks that the order needs."""
    side = planner.wide_tile
    return 8 * min(8 * up(order, 8), planner.narrow_tile) ** 2 if in_double else 4 * side**2 + 8 * side


def test_small_matrices_are_computed_in_double():
    shapes = {(64, 5000): True, (65, 128): True, (128, 128): True, (65, 129): False, (129, 65): False, (600, 20): False}
    (launch,) = planner.plan_residuals([(*shape, "bfloat16") for shape in shapes], planner.Device(132))
    assert {list(shapes)[work.matrix]: work.in_double for work in launch.work} == shapes


@pytest.mark.parametrize(
    ("matrices", "most_bytes"),
    [
        ([(1, 40_000)], 1 / 4 * 2**20),
        ([(10, 100_000)], 2**20),
        ([(64, 100_000)], 9 * 2**20),
        ([(1, 40_000)] * 500, 2**20),
        ([(3, 20_000)] * 20, 1 / 4 * 2**20),
        ([(1, 40_000), (64, 576)], 1 / 2 * 2**20),
    ],
)
def test_parts_of_small_orders_take_little_memory(matrices, most_bytes):
    """No more parts than make every block work once, each with room for what its order needs."""
    (launch,) = planner.plan_residuals([(*shape, "float32") for shape in matrices], planner.Device(132))
    small = sum(w.parts for w in launch.work if matrices[w.matrix][0] <= 64 and w.parts > 1)
    assert small <= 132 * planner.tile_blocks + len(matrices)
    assert launch.partial_bytes <= most_bytes


def balance(costs, launch, device):
    """The work of all multiprocessors over what they could do while the fullest is at work; blocks take one item a round,
    every other round in the opposite order."""
    loads = [0] * device.multiprocessors
    for item, cost in enumerate(costs):
        turn, block = divmod(item, launch.blocks)
        loads[(launch.blocks - 1 - block if turn % 2 else block) % len(loads)] += cost
    return sum(loads) / len(loads) / max(loads)


@pytest.mark.parametrize("multiprocessors", [108, 132])
def test_the_items_of_resnet50_are_balanced(multiprocessors):
    """The work of an item is the length of its products: of a part of the depth forward, of the order backward."""
    device = planner.Device(multiprocessors)
    views = [(shape[0], math.prod(shape[1:])) for shape in model_shapes.MODELS["resnet50"]()]
    matrices = [(min(view), max(view), "float32") for view in views]
    (forward,), (backward,) = planner.plan_residuals(matrices, device), planner.plan_products(matrices, device)
    costs = []
    for work in forward.work:
        last = matrices[work.matrix][1] - (work.parts - 1) * work.part_depth
        costs += ([work.part_depth] * (work.parts - 1) + [last]) * work.tiles
    assert len(costs) == forward.items
    assert balance(costs, forward, device) > 0.85
    costs = [matrices[w.matrix][0] for w in backward.work for _ in range(w.row_tiles * w.column_tiles)]
    assert len(costs) == backward.items
    assert balance(costs, backward, device) > 0.94


def test_a_short_fat_matrix_keeps_the_gpu_busy():
    (launch,) = planner.plan_residuals([(128, 65_536, "float32")], planner.Device(132))
    assert launch.items >= launch.blocks == 132 * planner.tile_blocks


def test_gradient_items_cover_every_tile(device):
    (launch,) = planner.plan_products([(*shape, "float32") for shape in SHAPES], device)
    size = lambda w: w.row_tiles * w.column_tiles  # noqa: E731
    assert consecutive(launch.work, lambda w: w.first_item, size) == launch.items
    for work in launch.work:
        order, depth = SHAPES[work.matrix]
        assert (work.row_tiles, work.column_tiles) == (up(order, planner.wide_tile), up(depth, planner.wide_tile))


def test_ranges_and_strips_cover_the_depth(device):
    matrices = [(*shape, "float32") for shape in SHAPES]
    (launch,) = planner.plan_iterations(matrices, 3, True, device)
    assert launch.steps == 5
    assert consecutive(launch.work, lambda w: w.first_item, lambda w: w.ranges) == launch.ranges
    for work in launch.work:
        order, depth = SHAPES[work.matrix]
        assert work.ranges == (up(depth, work.range_depth) if order else 0)
        assert work.range_depth % work.strip == 0
    (launch,) = planner.plan_updates(matrices, 2, device)
    assert consecutive(launch.work, lambda w: w.first_item, lambda w: w.strips) == launch.items
    for work in launch.work:
        order, depth = SHAPES[work.matrix]
        assert work.strips == (up(depth, launch.strip) if order else 0)


def test_a_launch_holds_one_format_and_as_many_matrices_as_its_arguments():
    device = planner.Device(132)
    mixed = [(32, 64, dtype) for dtype in DTYPES] * 5
    assert len(planner.plan_residuals(mixed, device)) == len(DTYPES)
    many = [(32, 64, "float32")] * 1500
    for launches in (
        planner.plan_residuals(many, device),
        planner.plan_products(many, device),
        planner.plan_iterations(many, 2, True, device),
        planner.plan_updates(many, 2, device),
    ):
        assert 2 <= len(launches) <= 6
        assert sorted(w.matrix for launch in launches for w in launch.work) == list(range(1500))


def test_what_a_launch_cannot_count_is_refused_by_name():
    with pytest.raises(RuntimeError, match="depth of a matrix: 3000000000"):
        planner.plan_residuals([(4, 3_000_000_000, "float32")], planner.Device(132))
