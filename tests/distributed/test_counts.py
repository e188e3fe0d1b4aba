"""The work, the bytes and the memory of several ranks: counted from the partition, and equal to what ran."""

from pathlib import Path

import pytest
from ranks import on_ranks

from benchmarks.model_shapes import resnet50
from benchmarks.scale.__main__ import main
from benchmarks.scale.counted import FSDP2, KINDS, LAYOUTS, TENSOR_PARALLEL, count, one_process, weight_bytes
from benchmarks.scale.goals import MODELS, goals, narrow
from benchmarks.scale.processes import Case, Did, check, did

GOALS = list(goals())


@pytest.mark.parametrize("goal", GOALS, ids=[goal.name for goal in GOALS])
def test_goal(goal):
    assert 0 < goal.found <= goal.most


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_rank_has_all_the_work_and_receives_nothing(layout, kind):
    counts = count(resnet50(), layout, kind, 1)
    assert counts.products == pytest.approx([one_process(resnet50(), kind)])
    assert counts.received == 0


@pytest.mark.parametrize("layout", [FSDP2, TENSOR_PARALLEL])
@pytest.mark.parametrize("model", MODELS)
def test_ranks_share_out_all_the_work(model, layout):
    for ranks in (2, 3, 4, 8, 64):
        counts = count(MODELS[model], layout, "so", ranks)
        assert sum(counts.products) == pytest.approx(one_process(MODELS[model], "so"))


def test_a_matrix_by_hand():
    """48 x 100 on 4 ranks by rows. It is more than 1.4 shares of the work, so each rank gets 25 columns."""
    counts = count([(48, 100)], FSDP2, "so", 4)
    whole = 4 * 48 * 100
    assert one_process([(48, 100)], "so") == 48 * 48 * 100 / 2 + 48 * 48 * 100
    assert counts.products == [1.5 * 48 * 48 * 25] * 4
    # A rank has a quarter of the rows of its columns already. The values are all-reduced in a slot of 256 bytes.
    assert counts.received == 2 * whole * 3 / 4 + 2 * 3 * (4 * 48 * 49 / 2 + 256)
    assert counts.moved([(48, 100)]) == counts.received / (3 * weight_bytes([(48, 100)]))
    # Matrix and gradient, and twice the triangle of R, its own and the sum, and a diagonal.
    assert counts.memory == [2 * whole / 4 + 4 * (2 * 48 * 49 / 2 + 48)] * 4
    assert counts.waiting == counts.products[0]


def test_srip_by_hand():
    """48 x 100 on 4 ranks by rows, two applications: W^T x and |x|^2 are added up in each of four passes."""
    counts = count([(48, 100)], FSDP2, "srip", 4)
    assert counts.received == 2 * 3 * 4 * 4 * (100 + 1)
    # Three applications of R, W^T x once more, and two products with a column and a row for each of two pairs.
    assert counts.products == [(3 * 2 + 1 + 2 * 2) * 12 * 100] * 4


def measured(rank, cases):
    return [did(rank, case)._asdict() for case in cases]


def test_what_ran(tmp_path):
    """Two processes compute, send and hold what was counted."""
    cases = [
        Case(f"{model}, {layout}, {kind}", narrow(MODELS[model]), layout, kind)
        for model in MODELS
        for layout in LAYOUTS
        for kind in KINDS
    ]
    ranks = on_ranks(2, tmp_path, measured, cases)
    for case, found in zip(cases, zip(*ranks, strict=True), strict=True):
        found = [Did(**each) for each in found]
        check(found, case)
        if case.kind == "so" and case.layout in (FSDP2, TENSOR_PARALLEL):  # a bound without slack
            memory = count(case.shapes, case.layout, case.kind, 2).memory
            assert all(each.peak > 0.9 * most for each, most in zip(found, memory, strict=True))


def test_another_count_is_noticed(tmp_path):
    case = Case("one", narrow(resnet50()), FSDP2, "so")
    [rank] = on_ranks(1, tmp_path, measured, [case])
    with pytest.raises(RuntimeError, match=r"one: .* multiply-adds of rank 0, counted are"):
        check([Did(**rank[0])._replace(products=1.0)], case)


@pytest.mark.parametrize("option", ["--paper", "--counted"])
def test_the_page_has_the_table(option, capsys):
    assert main([option]) == 0
    assert capsys.readouterr().out in (Path(__file__).parents[2] / "docs/scale.md").read_text()
