"""When triton serves, why it doesn't, and what is chosen where the CUDA library serves too."""

import logging
import subprocess
import sys

import pytest
import torch

from ortho_kernels.backends import gpu, registry, triton
from ortho_kernels.backends.cuda import CudaBackend
from ortho_kernels.backends.triton import TritonBackend
from ortho_kernels.weight_views import WeightViews


def test_float64_goes_elsewhere_and_the_reason_is_logged_once(monkeypatch, caplog):
    assert "float64" in triton.reason_against(torch.float64)
    monkeypatch.setattr(registry, "_logged", set())
    with caplog.at_level(logging.WARNING, logger="ortho_kernels"):
        chosen = [registry.choose("cuda", torch.float64) for _ in range(3)]
    assert len(set(chosen)) == 1
    assert "triton" not in chosen
    (record,) = caplog.records
    assert "float64" in record.message


def test_where_triton_is_absent_everything_else_works():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "import torch, ortho_kernels as ok\n"
        "from ortho_kernels.backends import triton\n"
        "assert ok.soft_orthogonality([torch.eye(3) * 2]).item() == 27\n"
        "print(triton.reason_against(torch.float32), '|', triton.describe())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stdout == "triton is not installed | triton is not installed\n", result.stderr


def test_too_old_a_triton_is_named(monkeypatch):
    triton.reason_against_triton.cache_clear()
    monkeypatch.setattr(triton, "find_spec", lambda name: object())
    monkeypatch.setattr(triton, "version", lambda name: "3.1.0")
    try:
        assert "triton 3.1.0 is too old" in triton.reason_against(torch.float32)
    finally:
        triton.reason_against_triton.cache_clear()


@pytest.fixture
def both_serve(monkeypatch):
    monkeypatch.setattr(CudaBackend, "reason_against", lambda self, dtype: None)
    monkeypatch.setattr(TritonBackend, "reason_against", lambda self, dtype: None)
    monkeypatch.setattr(triton, "architecture", lambda: "sm_90")


def test_of_two_the_faster_is_chosen(both_serve, monkeypatch):
    assert registry.choose("cuda", products=10**6) == "cuda"
    assert registry.choose("cuda", products=10**12) == "triton"
    assert "sm_90" in registry.explain("cuda")
    monkeypatch.setattr(triton, "architecture", lambda: "sm_89")
    assert registry.choose("cuda", products=10**12) == "cuda"
    assert "sm_89" in registry.explain("cuda")
    with registry.use_backend("triton"):
        assert registry.choose("cuda", products=1) == "triton"
        assert registry.explain("cuda") == "triton (asked for)"


def test_the_choice_is_made_once_and_kept_with_the_views(both_serve, monkeypatch):
    calls = []
    for name in ("cuda", "triton"):
        monkeypatch.setattr(registry.BACKENDS[name].__class__, "operators", Recorder(name, calls))
    monkeypatch.setattr(gpu, "weight_views", on_a_gpu(views := {}))
    small, large = torch.empty(64, 64), torch.empty(4096, 16384, device="meta")
    for _ in range(2):
        gpu._serve("soft_orthogonality", [small], [1], [0], 1.0, 1.0, True)
        gpu._serve("soft_orthogonality", [large], [1], [0], 1.0, 1.0, True)
        gpu._serve("soft_orthogonality_backward", torch.empty(1), [large], [1], [0], torch.empty(1), 0, [], [1], True)
        gpu._serve("srip", [large], [1], [0], torch.empty(1), 2, True, True)
        assert calls == [
            ("cuda", "soft_orthogonality"), ("triton", "soft_orthogonality"),
            ("triton", "soft_orthogonality_backward"), ("cuda", "srip"),
        ]  # fmt: skip
        calls.clear()
        monkeypatch.setattr(registry, "choose", None)  # a second call must not ask
    assert views[4096].backends[registry.asked, "so"].name == "triton"
    assert registry._products(WeightViews([torch.empty(6, 2, 5)], [2])) == 2 * 3 * 3 * 10 * 3 // 2


def on_a_gpu(kept):
    """Stands for `weight_views`: as if the weights lay on a GPU."""

    def views_of(weights, groups):
        rows = len(weights[0])
        if rows not in kept:
            kept[rows] = WeightViews(weights, groups)
            kept[rows].device = torch.device("cuda", 0)
        return kept[rows]

    return views_of


class Recorder:
    def __init__(self, backend, calls):
        self.backend, self.calls = backend, calls

    def __getattr__(self, name):
        return lambda *arguments, **views: self.calls.append((self.backend, name))
