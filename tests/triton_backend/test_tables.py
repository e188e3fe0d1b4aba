"""Plans and their tables: kept, bounded, and never built while a graph is captured. Neither triton nor a GPU is needed."""

import pytest
import torch

from ortho_kernels.backends.triton import tables
from ortho_kernels.backends.triton.matrices import Layout


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    monkeypatch.setattr(tables, "_plans", tables._Recent(tables.PLANS))
    monkeypatch.setattr(tables, "_read_by_graphs", {})


def plan_for(*weights):
    return tables.device_plan(weights, [1] * len(weights), [0] * len(weights))


def test_a_plan_depends_on_shapes_strides_dtypes_and_sides():
    weight = torch.randn(8, 12)
    kept = plan_for(weight)
    assert plan_for(torch.randn(8, 12)) is kept
    others = [
        plan_for(torch.randn(12, 8)),
        plan_for(torch.randn(12, 8).t()),
        plan_for(weight.bfloat16()),
        plan_for(torch.randn(97)[1:].view(8, 12)),  # not aligned
        tables.device_plan([weight], [1], [1]),
        tables.device_plan([weight], [2], [0]),
    ]
    assert len({id(each) for each in [kept, *others]}) == 7


def test_tables_are_built_once_and_addresses_follow_the_weights():
    first, second = torch.randn(8, 12), torch.randn(8, 12)
    own = plan_for(first)
    assert own.tables([first]).matrices is own.tables([second]).matrices
    assert own.tables([first]).addresses.tolist() == [first.data_ptr()]
    assert own.tables([second]).addresses.tolist() == [second.data_ptr()]
    assert own.tables([first]).addresses is own.tables([first]).addresses


def test_one_table_serves_all_gradients_that_lie_alike():
    weights = [torch.randn(8, 12), torch.randn(8, 12, dtype=torch.bfloat16), torch.randn(4, 8)]
    own = plan_for(*weights)

    def table_of(*shifts):
        """Gradients that lie in buffers of their own, at other addresses each time."""
        buffers = {dtype: torch.empty(400, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
        gradients = [buffers[w.dtype][s : s + w.numel()].view(w.shape) for w, s in zip(weights, shifts, strict=True)]
        return own.gradient_table(gradients, (True,) * 3), gradients

    (first, gradients), (second, others) = table_of(0, 16, 100), table_of(16, 0, 116)
    assert first.views is second.views
    assert first.first[torch.float32] is gradients[0]
    assert second.first[torch.bfloat16] is others[1]
    assert [row[0] for row in first.views.tolist()] == [0, 0, 100]
    assert first.access[torch.float32] == (1 << Layout.DEPTH_MAJOR, False)
    assert table_of(0, 16, 104)[0].views is not first.views
    unaligned, _ = table_of(0, 0, 102)
    assert [row[3] for row in unaligned.views.tolist()] == [Layout.DEPTH_MAJOR, Layout.STRIDED, Layout.STRIDED]


def test_a_gradient_that_does_not_fit_is_named():
    weight = torch.randn(6, 4, 3, 3)
    own = plan_for(torch.randn(8, 12), weight)
    for gradient in (
        torch.empty(6, 4, 3, 4),
        torch.empty(6, 4, 3, 3, dtype=torch.bfloat16),
        torch.empty(6, 4, 3, 3, device="meta"),
        torch.empty(6, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    ):
        with pytest.raises(RuntimeError, match=r"weights\[1\]: its gradient must have"):
            own.gradient_table([gradient], (False, True))


def test_the_caches_are_bounded():
    weights = [torch.randn(8, 12) for _ in range(tables.ADDRESSES + 5)]
    own = plan_for(weights[0])
    for place, weight in enumerate(weights):
        own.tables([weight])
        own.gradient_table(
            [torch.empty(8 * (13 + place))[: 8 * 12].view(8, 12).as_strided((8, 12), (12 + place, 1))], (True,)
        )
    assert len(own._addresses) == len(own._gradient_tables) == tables.ADDRESSES
    for depth in range(1, tables.PLANS + 5):
        plan_for(torch.empty(2, depth))
    assert len(tables._plans) == tables.PLANS


def test_nothing_is_built_while_a_graph_is_captured(monkeypatch):
    weight, gradient = torch.randn(8, 12), torch.empty(8, 12)
    own = plan_for(weight)

    def launches(key):
        return own.launches(key, lambda: own.plan.updates([True]), lambda storage: {})

    kept, views, items = (
        own.tables([weight]),
        own.gradient_table([gradient], (True,)).views,
        launches("updates")[0].items,
    )
    monkeypatch.setattr(tables, "_capturing", lambda device: True)
    assert own.tables([weight]) == kept
    assert own.gradient_table([torch.empty(8, 12)], (True,)).views is views
    assert launches("updates")[0].items is items
    with pytest.raises(RuntimeError, match=r"graph is being captured.*addresses.*once on the same weights before"):
        own.tables([torch.randn(8, 12)])
    with pytest.raises(RuntimeError, match=r"graph is being captured.*where these gradients lie"):
        own.gradient_table([torch.empty(12, 8).t()], (True,))
    with pytest.raises(RuntimeError, match=r"graph is being captured.*this plan"):
        launches("others")
    assert own.counters()[0].data_ptr() != own.counters()[0].data_ptr()  # a launch in a graph has counters of its own


def test_counters_are_aligned_and_zero():
    own = plan_for(torch.randn(8, 12), torch.randn(300, 20))
    blocks, matrices, barrier = own.counters()
    assert len(blocks) >= sum(own.plan.residuals.blocks_of)
    assert len(matrices) >= 2
    assert len(barrier) >= 2
    assert all(each.data_ptr() % 16 == 0 and not each.any() for each in (blocks, matrices, barrier))
    assert own.counters()[0].data_ptr() == blocks.data_ptr()
