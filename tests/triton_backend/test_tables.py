"""Plans and their tables: kept, bounded, and never built while a graph is captured. Neither triton nor a GPU is needed."""

import pytest
import torch

from ortho_kernels.backends.triton import tables


@pytest.fixture(autouse=True)
def own_cache(monkeypatch):
    monkeypatch.setattr(tables, "_plans", type(tables._plans)())
    monkeypatch.setattr(tables, "_read_by_graphs", {})


def tables_for(*weights):
    return tables.tables_for(weights, [1] * len(weights), [0] * len(weights))


def test_a_plan_depends_on_shapes_strides_dtypes_and_sides():
    weight = torch.randn(8, 12)
    kept = tables_for(weight)
    assert tables_for(torch.randn(8, 12)) is kept
    others = [
        tables_for(torch.randn(12, 8)),
        tables_for(torch.randn(12, 8).t()),
        tables_for(weight.bfloat16()),
        tables_for(torch.randn(97)[1:].view(8, 12)),  # not aligned
        tables.tables_for([weight], [1], [1]),
        tables.tables_for([weight], [2], [0]),
    ]
    assert len({id(each) for each in [kept, *others]}) == 7


def test_tables_are_built_once_and_addresses_follow_the_weights():
    first, second = torch.randn(8, 12), torch.randn(8, 12)
    own = tables_for(first)
    assert own.matrices() is own.matrices()
    assert own.matrices((False,)) is not own.matrices()
    assert own.addresses([first]).tolist() == [first.data_ptr()]
    assert own.addresses([second]).tolist() == [second.data_ptr()]
    assert own.addresses([first]) is own.addresses([first])


def test_the_caches_are_bounded():
    weights = [torch.randn(8, 12) for _ in range(tables.ADDRESSES + 5)]
    own = tables_for(weights[0])
    for weight in weights:
        own.addresses([weight])
    assert len(own._addresses) == tables.ADDRESSES
    for depth in range(1, tables.PLANS + 5):
        tables_for(torch.empty(2, depth))
    assert len(tables._plans) == tables.PLANS


def test_nothing_is_built_while_a_graph_is_captured(monkeypatch):
    weight = torch.randn(8, 12)
    own = tables_for(weight)
    matrices, addresses = own.matrices(), own.addresses([weight])
    monkeypatch.setattr(tables, "_capturing", lambda device: True)
    assert own.matrices() is matrices
    assert own.addresses([weight]) is addresses
    with pytest.raises(RuntimeError, match=r"graph is being captured.*addresses.*once on the same weights before"):
        own.addresses([torch.randn(8, 12)])
    with pytest.raises(RuntimeError, match=r"graph is being captured.*this plan"):
        own.matrices((False,))
    assert own.counters()[0].data_ptr() != own.counters()[0].data_ptr()  # a launch in a graph has counters of its own


def test_counters_are_aligned_and_zero():
    own = tables_for(torch.randn(8, 12), torch.randn(300, 20))
    tiles, matrices, barrier = own.counters()
    assert len(tiles) >= sum(own.plan.residuals.groups_of)
    assert len(matrices) >= 2
    assert len(barrier) >= 2
    assert all(each.data_ptr() % 16 == 0 and not each.any() for each in (tiles, matrices, barrier))
    assert own.counters()[0].data_ptr() == tiles.data_ptr()
