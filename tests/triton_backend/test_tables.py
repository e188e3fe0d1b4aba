"""Plans and their tables: kept, bounded, and never built while a graph is captured. Neither triton nor a GPU is needed."""

import pytest
import torch

from ortho_kernels import graph_reads
from ortho_kernels.backends.triton import tables
from ortho_kernels.backends.triton.matrices import Layout
from ortho_kernels.backends.triton.rows import Queue, Table

QUEUE = Queue.of(torch.device("cpu"))
CAPTURED = QUEUE._replace(capturing=True)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(tables, "_kept", tables._Kept.nothing())
    monkeypatch.setattr(graph_reads, "_read", {})


@pytest.fixture
def built(monkeypatch):
    """What the tables that are built hold, in words."""
    words = []

    class Noted(Table):
        def __init__(self, rows, what, *where):
            words.append(what)
            super().__init__(rows, what, *where)

    monkeypatch.setattr(tables, "Table", Noted)
    return words


def place_of(*weights):
    return tables.weight_place(weights, [1] * len(weights), [0] * len(weights))


def test_a_plan_depends_on_shapes_strides_dtypes_and_sides():
    weight = torch.randn(8, 12)
    kept = place_of(weight).device
    assert place_of(torch.randn(8, 12)).device is kept
    others = [
        place_of(torch.randn(12, 8)),
        place_of(torch.randn(12, 8).t()),
        place_of(weight.bfloat16()),
        place_of(torch.randn(97)[1:].view(8, 12)),  # not aligned
        tables.weight_place([weight], [1], [1]),
        tables.weight_place([weight], [2], [0]),
    ]
    assert len({id(each) for each in [kept, *(other.device for other in others)]}) == 7


def test_a_weight_that_is_seen_otherwise_at_the_same_address_has_another_plan():
    weight = torch.randn(8, 8)
    kept = place_of(weight).device
    for change in (weight.t(), weight[:4], weight[:, :4], weight.view(torch.float16), weight.view(4, 16)):
        weight.data, before = change, weight.data
        assert place_of(weight).device is not kept
        weight.data = before
    assert place_of(weight).device is kept


def test_tables_are_built_once_and_addresses_follow_the_weights(built):
    first, second = torch.randn(8, 12), torch.randn(8, 12)
    for weight in (first, second):
        for _ in range(3):
            own = place_of(weight).tables(QUEUE)
            assert own.addresses.tolist() == [weight.data_ptr()]
    assert own.matrices is place_of(first).tables(QUEUE).matrices
    assert built == ["the addresses of these weights", "this plan", "this plan", "the addresses of these weights"]


def gradients_in(buffers, weights, *shifts):
    return [buffers[w.dtype][s : s + w.numel()].view(w.shape) for w, s in zip(weights, shifts, strict=True)]


def test_one_table_serves_all_gradients_that_lie_alike(built):
    weights = [torch.randn(8, 12), torch.randn(8, 12, dtype=torch.bfloat16), torch.randn(4, 8)]
    own = place_of(*weights).device

    def place_at(*shifts):
        """Gradients that lie in buffers of their own, at other addresses each time."""
        buffers.append({dtype: torch.empty(400, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)})
        return own.gradient_place(gradients_in(buffers[-1], weights, *shifts), (1, 1, 1), QUEUE)

    buffers = []
    first, second = place_at(0, 16, 100), place_at(16, 0, 116)
    assert first is second
    assert first.first == {torch.float32: 0, torch.bfloat16: 1}
    assert [row[0] for row in first.views.read_on(QUEUE).tolist()] == [0, 0, 100]
    assert first.access[torch.float32] == (1 << Layout.DEPTH_MAJOR, False)
    assert place_at(0, 16, 104) is not first
    unaligned = place_at(0, 0, 102).views.read_on(QUEUE)
    assert [row[3] for row in unaligned.tolist()] == [Layout.DEPTH_MAJOR, Layout.STRIDED, Layout.STRIDED]
    assert built.count("where these gradients lie") == 3


def test_gradients_that_come_back_are_not_looked_at_again(monkeypatch):
    weights = [torch.randn(8, 12), torch.randn(4, 8)]
    own = place_of(*weights).device
    buffers = {torch.float32: torch.empty(400)}
    kept = own.gradient_place(gradients_in(buffers, weights, 0, 100), (1, 1), QUEUE)
    monkeypatch.setattr(own, "_place_alike", None)
    assert own.gradient_place(gradients_in(buffers, weights, 0, 100), (1, 1), QUEUE) is kept


def test_launches_are_found_once_a_place():
    weight, found = torch.randn(8, 12), []
    own = place_of(weight).device
    place = own.gradient_place([torch.empty(8, 12)], (1,), QUEUE)
    for key in (0, 1, 0, 1):
        place.launches(key, lambda key=key: found.append(key))
    assert found == [0, 1]


def test_a_gradient_that_does_not_fit_is_named():
    weight = torch.randn(6, 4, 3, 3)
    own = place_of(torch.randn(8, 12), weight).device
    for gradient in (
        torch.empty(6, 4, 3, 4),
        torch.empty(6, 4, 3, 3, dtype=torch.bfloat16),
        torch.empty(6, 4, 3, 3, device="meta"),
        torch.empty(6, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    ):
        with pytest.raises(RuntimeError, match=r"weights\[1\]: its gradient must have"):
            own.gradient_place([gradient], (0, 1), QUEUE)


def test_a_gradient_of_another_shape_at_the_same_address_is_named():
    own, buffer = place_of(torch.randn(1, 12)).device, torch.empty(12, 12)
    own.gradient_place([buffer[:1]], (1,), QUEUE)
    with pytest.raises(RuntimeError, match=r"weights\[0\]: its gradient must have"):
        own.gradient_place([buffer[:, :1]], (1,), QUEUE)  # of the same strides and size


def test_the_caches_are_bounded():
    weights = [torch.randn(8, 12) for _ in range(tables.PLANS + 5)]
    for weight in weights:
        own = place_of(weight).device
    assert len(tables._kept.places) == tables.PLANS
    for place in range(tables.PLACES + 5):
        apart = torch.empty(8 * (13 + place))[: 8 * 12].view(8, 12).as_strided((8, 12), (12 + place, 1))
        own.gradient_place([apart], (1,), QUEUE)
    assert len(own._places) == len(own._places_alike) == tables.PLACES
    for depth in range(1, tables.PLANS + 5):
        place_of(torch.empty(2, depth))
    assert len(tables._kept.plans) == tables.PLANS


def test_what_was_used_last_stays():
    recent = tables._Recent(2)
    for key in ("a", "b", "a", "a", "c", "a"):
        recent.find(key, key.upper)
    assert dict(recent) == {"c": "C", "a": "A"}


def test_nothing_is_built_while_a_graph_is_captured(monkeypatch):
    weight, gradient = torch.randn(8, 12), torch.empty(8, 12)
    place = place_of(weight)
    own = place.device

    def launches(key, queue):
        return own.launches(key, lambda: own.plan.updates([True]), lambda storage: {}, queue)

    kept, views, items = place.tables(QUEUE), own.gradient_place([gradient], (1,), QUEUE), launches("updates", QUEUE)
    monkeypatch.setattr(graph_reads, "is_captured", lambda device: True)
    assert place_of(weight).tables(CAPTURED) == kept
    elsewhere = torch.empty(8, 12)
    assert own.gradient_place([elsewhere], (1,), CAPTURED) is views
    assert launches("updates", CAPTURED) is items
    assert (
        own.counters(CAPTURED)[0].data_ptr() != own.counters(CAPTURED)[0].data_ptr()
    )  # a launch in a graph has its own
    with pytest.raises(RuntimeError, match=r"graph is being captured.*addresses.*once on the same weights before"):
        place_of(torch.randn(8, 12))
    with pytest.raises(RuntimeError, match=r"graph is being captured.*where these gradients lie"):
        own.gradient_place([torch.empty(12, 8).t()], (1,), CAPTURED)
    with pytest.raises(RuntimeError, match=r"graph is being captured.*this plan"):
        launches("others", CAPTURED)
    assert {id(kept.matrices), id(kept.addresses)} <= set(graph_reads._read)


class Stream:
    """Of a GPU that isn't there: writes down for what it waits."""

    def __init__(self):
        self.waited = []

    def wait_event(self, event):
        self.waited.append(event)


def test_another_stream_waits_for_the_copy_once(monkeypatch):
    table = Table([1, 2], "this plan", torch.device("cpu"), QUEUE)
    table._copied = "the copy"
    recorded = []
    table._rows = type("Rows", (), {"record_stream": lambda self, stream: recorded.append(stream)})()
    other = Queue(Stream(), 7, False)
    for queue in (QUEUE, other, other, QUEUE):
        table.read_on(queue)
    assert other.stream.waited == ["the copy"]
    assert recorded == [other.stream]


def test_counters_are_aligned_and_zero():
    own = place_of(torch.randn(8, 12), torch.randn(300, 20)).device
    blocks, matrices = own.counters(QUEUE)
    assert len(blocks) >= own.plan.residual_blocks
    assert len(matrices) >= 2
    assert all(each.data_ptr() % 16 == 0 and not each.any() for each in (blocks, matrices))
    assert own.counters(QUEUE)[0].data_ptr() == blocks.data_ptr()
