"""Who serves, and what is said where one can't; the doctor; the cost of the import."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ortho_kernels import doctor, soft_orthogonality, use_backend
from ortho_kernels.backends import cpu, cuda, gpu, registry
from ortho_kernels.backends import torch as torch_backend
from ortho_kernels.weight_views import weight_views


def python(code, **environment):
    """Runs code in a fresh interpreter."""
    environment = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(os.environ.get("ORTHO_KERNELS_NO_NATIVE") == "1", reason="asked to do without the native library")
def test_the_native_library_is_there():
    """Elsewhere its tests are skipped where it is missing; here a build that failed is seen."""
    assert cpu.library.reason_against is None
    assert registry.choose("cpu") == "cpu"


def test_without_the_native_library_torch_serves():
    result = python(
        "import torch, ortho_kernels as ok; from ortho_kernels.backends import registry\n"
        "print(registry.choose('cpu'), ok.soft_orthogonality([torch.eye(3) * 2]).item())\n"
        "try:\n"
        "    with ok.use_backend('cpu'): ok.soft_orthogonality([torch.eye(3)])\n"
        "except RuntimeError as error: print(error)",
        ORTHO_KERNELS_NO_NATIVE="1",
    )
    assert result.stdout.startswith("torch 27.0\n"), result.stderr
    assert "'cpu' was asked for but can't serve these weights" in result.stdout
    assert "ORTHO_KERNELS_NO_NATIVE" in result.stdout


def test_kernels_say_no_to_other_devices():
    assert "run on cpu" in registry.reason_against("cpu", "cuda")
    assert "run on cuda" in registry.reason_against("cuda", "cpu")
    assert "run on cuda" in registry.reason_against("triton", "cpu")
    assert registry.reason_against("torch", "cuda") is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_torch_serves_its_device():
    for backend in ("cuda", "triton"):
        assert registry.reason_against(backend, "cuda") is not None
    assert registry.choose("cuda") == "torch"


def test_unknown_backends():
    with (
        pytest.raises(ValueError, match="must be one of 'auto', 'cuda', 'triton', 'cpu', 'torch'; got 'numpy'"),
        use_backend("numpy"),
    ):
        pass
    result = python("import ortho_kernels", ORTHO_KERNELS_BACKEND="numpy")
    assert "environment variable ORTHO_KERNELS_BACKEND must be one of" in result.stderr


def test_use_backend_ends_with_its_block():
    before = registry.choose("cpu")
    with use_backend("torch"):
        assert registry.choose("cpu") == "torch"
    assert registry.choose("cpu") == before


def test_a_call_goes_straight_to_its_backend(kernels, monkeypatch):
    """Past the dispatcher, but where a mode is to see the operators."""
    called = []

    def operate(self, name, views, *arguments):
        called.append((name, views))
        return getattr(self.operators, name)(*arguments)

    monkeypatch.setattr(cpu.CpuBackend, "operate", operate)
    weights = [torch.randn(3, 5, requires_grad=True), torch.randn(4, 2)]
    soft_orthogonality(weights).backward()
    views = weight_views(weights, 1)
    assert called == [("soft_orthogonality", views), ("soft_orthogonality_backward", views)]
    seen = []

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, arguments=(), options=None):
            seen.append(str(operator))
            return operator(*arguments, **(options or {}))

    with Mode():
        soft_orthogonality(weights).backward()
    assert {"ortho_kernels.soft_orthogonality.default", "ortho_kernels.soft_orthogonality_backward.default"} <= {*seen}
    assert len(called) == 2


@pytest.mark.parametrize(
    ("asked", "reason", "by_library"), [("auto", None, True), ("triton", None, False), ("cuda", "no GPU", False)]
)
def test_start_vectors_on_a_gpu(monkeypatch, asked, reason, by_library):
    """By the CUDA library, where it may serve; else by the definition."""
    library = SimpleNamespace(start_vectors=lambda keys, step: "one launch")
    monkeypatch.setattr(cuda.CudaBackend, "operators", library)
    monkeypatch.setattr(cuda.CudaBackend, "reason_against", lambda self, dtype: reason)
    monkeypatch.setattr(registry, "asked", asked)
    drawn = gpu._start_vectors(torch.arange(3), torch.tensor(0))
    assert drawn == "one launch" if by_library else drawn.shape == (3,)


def test_the_torch_backend_warns_once_of_low_precision(monkeypatch):
    monkeypatch.setattr(torch_backend, "_warned", False)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with use_backend("torch"):
            with pytest.warns(UserWarning, match="near orthogonality"):
                soft_orthogonality([torch.eye(3)])
            soft_orthogonality([torch.eye(3)])
    finally:
        torch.set_float32_matmul_precision(before)


def test_doctor(capsys):
    assert doctor.main() == 0
    text = capsys.readouterr().out
    assert torch.__version__ in text
    assert "torch on cpu     works: largest relative error" in text
    if cpu.library.reason_against is None:
        assert "cpu on cpu       works" in text


def test_doctor_finds_wrong_numbers(monkeypatch, capsys):
    real = doctor.functional.soft_orthogonality
    monkeypatch.setattr(doctor.functional, "soft_orthogonality", lambda *a, **k: 1.001 * real(*a, **k))
    assert doctor.main() == 1
    assert "WRONG" in capsys.readouterr().out


CUDA_FACTS = "from ortho_kernels.backends import cuda; print(cuda.CudaBackend().facts()['CUDA library'])"


@pytest.mark.skipif(cuda.library.reason_against is not None, reason=f"CUDA kernels: {cuda.library.reason_against}")
def test_another_build_of_the_cuda_library(tmp_path):
    other = tmp_path / "another.so"
    shutil.copy(cuda.library.path, other)
    result = python(CUDA_FACTS, ORTHO_KERNELS_CUDA_LIBRARY=str(other))
    assert result.stdout.startswith(f"{other}, nvcc "), result.stderr


def test_a_cuda_library_that_can_not_be_loaded_says_why(tmp_path):
    missing = tmp_path / "missing.so"
    result = python(CUDA_FACTS, ORTHO_KERNELS_CUDA_LIBRARY=str(missing))
    assert result.stdout == f"ORTHO_KERNELS_CUDA_LIBRARY is {str(missing)!r}, which does not exist\n", result.stderr
    (broken := tmp_path / "broken.so").write_text("not a library")
    result = python(CUDA_FACTS, ORTHO_KERNELS_CUDA_LIBRARY=str(broken))
    assert result.stdout.startswith("failed to load: "), result.stderr
    assert str(broken) in result.stdout
    assert "Could not load" not in result.stdout  # but what the linker says, such as
    assert "too short" in result.stdout


@pytest.mark.skipif(cpu.library.reason_against is not None, reason=f"the native library: {cpu.library.reason_against}")
def test_another_library_is_not_taken_for_the_cuda_kernels():
    result = python(CUDA_FACTS, ORTHO_KERNELS_CUDA_LIBRARY=str(cpu.library.path))
    assert result.stdout == f"failed to load: {cpu.library.path} is no build of the CUDA kernels\n", result.stderr


@pytest.mark.parametrize(
    ("facts", "capability", "runs"),
    [
        ("nvcc 13.0 for sm_90", (9, 0), True),
        ("nvcc 13.0 for sm_90a", (9, 0), True),
        ("nvcc 13.0 for sm_90", (8, 0), False),
        ("nvcc 13.0 for sm_80", (8, 9), True),
        ("nvcc 13.0 for sm_86", (8, 0), False),
        ("nvcc 13.0 for sm_80", (9, 0), False),
        ("nvcc 13.0 for sm_80 + PTX", (12, 1), True),
        ("nvcc 13.0 for sm_90, sm_100", (10, 3), True),
        ("nvcc 13.0 for sm_90, sm_120", (10, 0), False),
    ],
)
def test_machine_code_runs_on_its_own_generation(facts, capability, runs, monkeypatch):
    monkeypatch.setattr(cuda, "_against", None)
    monkeypatch.setattr(cuda, "_built_for", cuda.built_for(facts))
    monkeypatch.setattr(cuda, "_facts", lambda: facts)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    reason = cuda.CudaBackend().reason_against(torch.float32)
    assert (reason is None) == runs
    if not runs:
        assert facts in reason
        assert f"sm_{capability[0]}{capability[1]}" in reason


def test_importing_the_core_imports_no_heavy_library():
    result = python(
        "import sys, ortho_kernels\n"
        "heavy = {'lightning', 'lightly', 'hydra', 'timm', 'matplotlib', 'triton', 'sklearn', 'torchvision'}\n"
        "heavy.add('torch._dynamo')\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert result.stdout == "[]\n", result.stderr + result.stdout
