"""The planner: every number is worked on exactly once."""

import itertools

import pytest

introspect = pytest.importorskip("ortho_kernels._introspect")

SHAPES = [(1, 1), (64, 147), (256, 256), (257, 300), (600, 5000), (0, 5), (5, 0), (3000, 3000)]


def test_imports_without_torch():
    import subprocess
    import sys

    code = (
        "import importlib.util, sys;"
        f"spec = importlib.util.spec_from_file_location('_introspect', {introspect.__file__!r});"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module);"
        "assert module.cpu_levels() and module.build_facts()['compiler'] and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("shapes", [SHAPES, [(600, 5000)], [(64, 100_000)], []], ids=["many", "one", "flat", "none"])
def test_residual_tiles_cover_the_lower_triangle_once(shapes):
    tiles = introspect.plan_residuals(shapes)
    for m, (order, depth) in enumerate(shapes):
        own = [t for t in tiles if t.matrix == m]
        covered = {}
        for t in own:
            assert t.column <= t.row
            assert t.row + t.rows <= order
            assert t.column + t.columns <= order
            covered.setdefault((t.row, t.column, t.rows, t.columns), []).append((t.depth, t.depth_end))
        area = sum(
            rows * (rows + 1) // 2 if row == column else rows * columns for row, column, rows, columns in covered
        )
        assert area == order * (order + 1) // 2
        for ranges in covered.values():
            ranges.sort()
            assert ranges[0][0] == 0
            assert ranges[-1][1] == depth
            assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))


def test_few_tiles_are_cut_along_the_depth_within_bounded_memory():
    capacity = introspect.Capacity()
    for shapes in ([(64, 100_000)], [(256, 60_000)] * 20):
        tiles = introspect.plan_residuals(shapes)
        assert len(tiles) > len(shapes)
        kept = (t.rows * t.columns // (2 if t.row == t.column else 1) for t in tiles if t.parts > 1)
        assert sum(kept) <= capacity.partial_sums


def test_gradient_tiles_and_ranges_cover_each_matrix_once():
    tiles = introspect.plan_gradients(SHAPES)
    for m, (order, depth) in enumerate(SHAPES):
        assert sum(t.rows * t.columns for t in tiles if t.matrix == m) == order * depth
    ranges = introspect.plan_ranges(SHAPES)
    for m, (order, depth) in enumerate(SHAPES):
        assert sum(r.end - r.begin for r in ranges if r.matrix == m) == (depth if order else 0)


TRIPLES = [
    (1, 1, 1),
    (8, 12, 4096),
    (600, 1100, 90),
    (1100, 30, 90),
    (0, 5, 5),
    (5, 0, 5),
    (5, 5, 0),
    (8, 8, 2_000_000),
]


def test_cross_gram_tiles_cover_each_pair_once():
    tiles = introspect.plan_cross_grams(TRIPLES)
    for m, (rows, columns, depth) in enumerate(TRIPLES):
        own = [t for t in tiles if t.matrix == m]
        assert sum(t.rows * t.columns for t in own if t.part == 0) == rows * columns
        assert sum(t.rows * t.columns * (t.depth_end - t.depth) for t in own) == rows * columns * depth
        assert all(t.row + t.rows <= rows and t.column + t.columns <= columns for t in own)


def test_pairs_of_few_rows_are_cut_along_the_depth():
    assert len(introspect.plan_cross_grams([(8, 8, 2_000_000)])) > 2


def test_product_tiles_cover_each_product_once():
    tiles = introspect.plan_products(TRIPLES)
    for m, (rows, columns, _) in enumerate(TRIPLES):
        assert sum(t.rows * t.columns for t in tiles if t.matrix == m) == rows * columns


def test_the_largest_comes_first():
    work = [t.rows * t.columns * SHAPES[t.matrix][0] for t in introspect.plan_gradients(SHAPES)]
    assert work == sorted(work, reverse=True)
