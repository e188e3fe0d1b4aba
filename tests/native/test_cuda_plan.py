"""The planner of the GPU's launches: every number is worked on exactly once, in as few launches as arguments allow."""

import math
from itertools import accumulate, pairwise

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


LAYOUTS = {"along": True, "across": False}
EVERY_LAYOUT = [(*shape, dtype, along) for shape in SHAPES for dtype in ("float32",) for along in LAYOUTS.values()]


def strips(matrix, work):
    order, depth = matrix[:2]
    return up(depth, work.strip) if order else 0


def test_every_block_has_an_equal_share_of_the_strips(device):
    (launch,) = planner.plan_iterations(EVERY_LAYOUT, 3, True, device)
    assert launch.steps == 5
    assert consecutive(launch.work, lambda w: w.first_item, lambda w: strips(EVERY_LAYOUT[w.matrix], w)) == launch.items
    assert launch.blocks <= planner.pass_blocks * device.multiprocessors
    share, longer = divmod(launch.items, launch.blocks)
    ends = list(accumulate(share + (block < longer) for block in range(launch.blocks)))
    shares = [range(begin, end) for begin, end in pairwise([0, *ends])]
    for work in launch.work:
        own = range(work.first_item, work.first_item + strips(EVERY_LAYOUT[work.matrix], work))
        sharing = [b for b, share in enumerate(shares) if range(max(own.start, share.start), min(own.stop, share.stop))]
        assert sharing == list(range(work.first_block, work.first_block + work.ranges))
    partials = sum(w.ranges * EVERY_LAYOUT[w.matrix][0] for w in launch.work)
    assert launch.partial_bytes == 8 * partials


@pytest.mark.parametrize("dtype", DTYPES)
def test_strips_stay_in_registers_up_to_the_orders_of_common_models(dtype):
    """A block's threads hold all rows of a strip: 1024 of them in float32, in packets of 16 bytes."""
    packets, numbers = 16 if dtype == "float32" else 8, 16 // DTYPES[dtype]
    for order in (1, 5, 64, 147, 512, 1024):
        along, across = planner.plan_iterations(
            [(order, 3000, dtype, along) for along in (True, False)], 2, True, planner.Device(132)
        )[0].work
        assert along.strip == along.width * numbers
        assert order <= packets * planner.pass_threads // along.width or (packets, order) == (8, 1024)
        assert across.strip == packets * planner.pass_threads // across.width
        assert order <= across.width * numbers or (numbers, order) == (2, 1024)


@pytest.mark.parametrize("pairs", [1, 2, 40])
def test_items_of_gradients_cover_the_depth(pairs):
    (launch,) = planner.plan_updates(EVERY_LAYOUT, pairs)
    assert consecutive(launch.work, lambda w: w.first_item, lambda w: strips(EVERY_LAYOUT[w.matrix], w)) == launch.items
    for work in launch.work:
        assert launch.four_bytes >= (work.strip + work.block) * 16 * up(2 * pairs, 4)
    assert launch.four_bytes <= 80 * 1024  # beside a block's other shared memory


def test_a_launch_holds_one_format_and_as_many_matrices_as_its_arguments():
    device = planner.Device(132)
    mixed = [(32, 64, dtype) for dtype in DTYPES] * 5
    assert len(planner.plan_residuals(mixed, device)) == len(DTYPES)
    many = [(32, 64, "float32")] * 1500
    for launches in (
        planner.plan_residuals(many, device),
        planner.plan_products(many, device),
        planner.plan_iterations(many, 2, True, device),
        planner.plan_updates(many, 2),
    ):
        assert 2 <= len(launches) <= 6
        assert sorted(w.matrix for launch in launches for w in launch.work) == list(range(1500))


def test_a_gradient_through_many_iterations_still_fits():
    """The products with all vectors are in shared memory at the same time."""
    planner.plan_updates(EVERY_LAYOUT, 50)
    with pytest.raises(RuntimeError, match="through 60 iterations"):
        planner.plan_updates(EVERY_LAYOUT, 60)


def test_what_a_launch_cannot_count_is_refused_by_name():
    with pytest.raises(RuntimeError, match="depth of a matrix: 3000000000"):
        planner.plan_residuals([(4, 3_000_000_000, "float32")], planner.Device(132))
