"""When triton serves, why it doesn't, and what is chosen where the CUDA library serves too."""

import logging
import subprocess
import sys

import pytest
import torch

from ortho_kernels.backends import cuda, gpu, registry, triton
from ortho_kernels.backends.cuda import CudaBackend
from ortho_kernels.backends.gpu_choice import Step
from ortho_kernels.backends.triton import TritonBackend
from ortho_kernels.options import SO
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
    on(monkeypatch, "sm_90", has_warpgroups=True)


def on(monkeypatch, architecture, has_warpgroups=False):
    monkeypatch.setattr(triton, "architecture", lambda: architecture)
    monkeypatch.setattr(cuda, "has_warpgroups", lambda: has_warpgroups)


def step(penalty, *storages):
    return Step(penalty, frozenset(storages or [torch.float32]))


@pytest.mark.parametrize("architecture", ["sm_90", "sm_100", "sm_103"])
def test_without_warpgroups_the_faster_is_chosen(both_serve, monkeypatch, architecture):
    on(monkeypatch, architecture)
    for expected, given in (
        ("cuda", step("so")),
        ("triton", step("so", torch.bfloat16)),
        ("triton", step("so", torch.bfloat16, torch.float16)),
        ("cuda", step("so", torch.float32, torch.bfloat16)),  # the float32 among them would be slower
        ("cuda", step("srip", torch.bfloat16)),
    ):
        assert registry.choose("cuda", step=given) == expected, given
    assert registry.explain("cuda") == "triton for soft orthogonality of bfloat16 and float16; else cuda"


@pytest.mark.parametrize("penalty", ["so", "srip"])
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_with_warpgroups_cuda_is_the_faster(both_serve, penalty, storage):
    """`gpu_choice.py` gives the times."""
    assert registry.choose("cuda", step=step(penalty, storage)) == "cuda"
    assert registry.explain("cuda").startswith("cuda")


def test_where_nothing_was_measured_cuda_is_chosen(both_serve, monkeypatch):
    on(monkeypatch, "sm_89")
    for penalty in ("so", "srip"):
        assert registry.choose("cuda", step=step(penalty, torch.bfloat16)) == "cuda"
    assert registry.explain("cuda").startswith("cuda")


@pytest.mark.parametrize(
    ("facts", "capability", "has"),
    [
        ("nvcc 13.0 for sm_90a", (9, 0), True),
        ("nvcc 13.0 for sm_80, sm_90a + PTX", (9, 0), True),
        ("nvcc 13.0 for sm_80, sm_90a + PTX", (8, 0), False),
        ("nvcc 13.0 for sm_80 + PTX", (9, 0), False),
        ("nvcc 13.0 for sm_90a, sm_100", (10, 0), False),
    ],
)
def test_warpgroups_take_machine_code_of_their_own(monkeypatch, facts, capability, has):
    monkeypatch.setattr(cuda, "_built_for", cuda.built_for(facts))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert cuda.has_warpgroups() is has


def test_who_is_asked_for_is_chosen(both_serve):
    with registry.use_backend("triton"):
        assert registry.choose("cuda", step=step("so")) == "triton"
        assert registry.explain("cuda") == "triton (asked for)"


def test_the_choice_is_made_once_and_kept_with_the_views(both_serve, monkeypatch):
    calls = []
    for name in ("cuda", "triton"):
        monkeypatch.setattr(registry.BACKENDS[name].__class__, "operators", Recorder(name, calls))
    monkeypatch.setattr(gpu, "weight_views", on_a_gpu(views := {}))
    on(monkeypatch, "sm_100")
    single, half = torch.empty(64, 64), torch.empty(32, 64, dtype=torch.bfloat16)
    for _ in range(2):
        gpu._serve("soft_orthogonality", [single], [1], [0], 1.0, 1.0, True)
        gpu._serve("soft_orthogonality", [half], [1], [0], 1.0, 1.0, True)
        gpu._serve("soft_orthogonality_backward", torch.empty(1), [half], [1], [0], torch.empty(1), 0, [], [1], True)
        gpu._serve("srip", [half], [1], [0], torch.empty(1), 2, True, True)
        gpu._serve("srip_backward", torch.empty(1), [half], [1], [0], torch.empty(1), 2, [], [1], True)
        assert calls == [
            ("cuda", "soft_orthogonality"), ("triton", "soft_orthogonality"),
            ("triton", "soft_orthogonality_backward"), ("cuda", "srip"), ("cuda", "srip_backward"),
        ]  # fmt: skip
        calls.clear()
        monkeypatch.setattr(registry, "choose", None)  # a second call must not ask
    assert views[32].backends[registry.asked, SO()].name == "triton"


def test_the_dtypes_of_a_step():
    views = WeightViews([torch.empty(6, 2, 5), torch.empty(4, 3, dtype=torch.bfloat16)], [2, 1])
    assert Step.of("so", views) == step("so", torch.float32, torch.bfloat16)


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
