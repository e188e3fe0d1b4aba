"""When triton serves, why it doesn't, and what is chosen where the CUDA library serves too."""

import logging
import subprocess
import sys

import pytest
import torch

from benchmarks import model_shapes
from ortho_kernels.backends import gpu, registry, triton
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
    monkeypatch.setattr(triton, "architecture", lambda: "sm_90")


def step(penalty, products, *storages):
    return Step(penalty, frozenset(storages or [torch.float32]), products)


@pytest.mark.parametrize("architecture", ["sm_90", "sm_100", "sm_103"])
def test_of_two_the_faster_is_chosen(both_serve, monkeypatch, architecture):
    monkeypatch.setattr(triton, "architecture", lambda: architecture)
    large, small = 10**12, 10**6
    for expected, given in (
        ("triton", step("so", large)),
        ("cuda", step("so", small)),
        ("triton", step("so", small, torch.bfloat16)),
        ("triton", step("srip", small)),
        ("triton", step("srip", small, torch.float32, torch.bfloat16)),
        ("cuda", step("so", small, torch.float32, torch.bfloat16)),  # the float32 among them would be slower
    ):
        assert registry.choose("cuda", step=given) == expected, given
    assert registry.explain("cuda") == (
        "triton for SRIP and soft orthogonality from 1.4e+10 multiplications a step on; else cuda"
    )


def test_where_nothing_was_measured_cuda_is_chosen(both_serve, monkeypatch):
    monkeypatch.setattr(triton, "architecture", lambda: "sm_89")
    for penalty in ("so", "srip"):
        assert registry.choose("cuda", step=step(penalty, 10**12)) == "cuda"
    assert "sm_89" in registry.explain("cuda")


def test_who_is_asked_for_is_chosen(both_serve):
    with registry.use_backend("triton"):
        assert registry.choose("cuda", step=step("so", 1)) == "triton"
        assert registry.explain("cuda") == "triton (asked for)"


def test_models_that_were_measured_go_to_the_faster(both_serve):
    """`gpu_choice.py` gives the times."""
    for model, penalty, storage, expected in (
        ("resnet18", "so", torch.float32, "cuda"),
        ("resnet50", "so", torch.float32, "triton"),
        ("vit_base", "so", torch.float32, "triton"),
        ("resnet18", "so", torch.bfloat16, "triton"),
        ("resnet18", "srip", torch.float32, "triton"),
    ):
        shapes = model_shapes.MODELS[model]()
        weights = [torch.empty(shape, dtype=storage, device="meta") for shape in shapes]
        given = Step.of(penalty, WeightViews(weights, [1] * len(weights)))
        assert registry.choose("cuda", step=given) == expected, (model, penalty, storage)


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
        gpu._serve("srip", [small], [1], [0], torch.empty(1), 2, True, True)
        gpu._serve("srip_backward", torch.empty(1), [small], [1], [0], torch.empty(1), 2, [], [1], True)
        assert calls == [
            ("cuda", "soft_orthogonality"), ("triton", "soft_orthogonality"),
            ("triton", "soft_orthogonality_backward"), ("triton", "srip"), ("triton", "srip_backward"),
        ]  # fmt: skip
        calls.clear()
        monkeypatch.setattr(registry, "choose", None)  # a second call must not ask
    assert views[4096].backends[registry.asked, SO()].name == "triton"


def test_the_products_of_a_step():
    views = WeightViews([torch.empty(6, 2, 5), torch.empty(4, 3, dtype=torch.bfloat16)], [2, 1])
    assert Step.of("so", views) == step("so", (2 * 3 * 3 * 10 + 3 * 3 * 4) * 3 // 2, torch.float32, torch.bfloat16)


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
