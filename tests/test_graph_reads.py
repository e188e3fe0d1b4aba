"""What a CUDA graph reads of ours outlives whatever held it. Neither is a GPU needed, nor is anything captured here."""

import gc

import pytest
import torch
from torch import nn

from ortho_kernels import OrthogonalityPenalty, StepSchedule, graph_reads, soft_orthogonality, weight_views


@pytest.fixture
def read(monkeypatch):
    """What is kept while, as it seems, a graph is captured."""
    kept = {}
    monkeypatch.setattr(graph_reads, "_read", kept)
    monkeypatch.setattr(graph_reads, "is_captured", lambda device: True)
    return kept


def values_of(kept):
    return [tensor.tolist() for tensor in kept.values()]


@pytest.mark.parametrize(
    ("options", "constant"),
    [
        ({"reduction": "entries"}, [1 / 16, 1 / 9]),
        ({"side": "large"}, [1, 3]),  # eigenvalues -1 that the larger Gram has more
    ],
)
def test_constants_of_views_that_the_cache_drops(read, monkeypatch, options, constant):
    monkeypatch.setattr(weight_views, "_cache", {})
    soft_orthogonality([torch.randn(4, 5), torch.randn(6, 3)], **options)
    weight_views._cache.clear()
    gc.collect()
    assert values_of(read) == [pytest.approx(constant)]


def test_the_gamma_before_another_one_is_set(read):
    model = nn.ModuleDict({"a": nn.Linear(4, 5), "b": nn.Linear(6, 3)})
    penalty = OrthogonalityPenalty(model, gamma={"a": StepSchedule(2.0, {9: 0.5}), "*": 0.25})
    penalty()
    penalty.gamma = 1.0
    gc.collect()
    assert sorted(map(str, values_of(read))) == sorted(["[1.0, 0.25]", "1.0", "[1, 0]"])


@pytest.mark.parametrize("warm_start", [False, True])
def test_what_start_vectors_are_made_of(read, warm_start):
    """The key of each entry, or the matrix of each entry."""
    penalty = OrthogonalityPenalty(nn.Linear(4, 3), "srip", warm_start=warm_start)
    penalty()
    del penalty
    gc.collect()
    assert [len(numbers) for numbers in values_of(read)] == [3]


def test_nothing_is_kept_outside_of_a_capture(monkeypatch):
    monkeypatch.setattr(graph_reads, "_read", {})
    soft_orthogonality([torch.randn(4, 5)], reduction="entries")
    assert not graph_reads._read
