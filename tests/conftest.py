"""Shared fixtures, and the environment of all tests."""

import os
from pathlib import Path

# Threads must not spin while they wait: on two shared cores that costs 20 ms a call.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that tests start import this checkout too, whether or not the package is installed.
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(
    os.pathsep
)

import needs
import pytest
import torch

from ortho_kernels.backends.registry import reason_against, use_backend

ON_CPU = {"backend": ["cpu", "torch"], "kernels": ["cpu"]}
ON_GPU = {"backend": ["cuda", "triton", "torch"], "kernels": ["cuda", "triton"]}


def pytest_generate_tests(metafunc):
    """`backend` and `kernels` run a test for each backend: on the CPU, and on a GPU where one is or is asked for."""
    only_gpu = metafunc.definition.get_closest_marker("gpu") is not None
    asked = torch.cuda.is_available() or "gpu" in metafunc.config.option.markexpr
    for fixture in ON_CPU:
        if fixture not in metafunc.fixturenames:
            continue
        cases = [] if only_gpu else [pytest.param((name, "cpu"), id=name) for name in ON_CPU[fixture]]
        if only_gpu or asked:
            cases += [pytest.param((name, "cuda"), id=f"{name}-gpu", marks=pytest.mark.gpu) for name in ON_GPU[fixture]]
        metafunc.parametrize(fixture, cases, indirect=True)


def pytest_pycollect_makemodule(module_path, parent):
    return needs.module_of(module_path, parent)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no GPU that torch can use")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """On a GPU, a backend that says no to a dtype is passed over, with its reason: another serves there."""
    try:
        return (yield)
    except RuntimeError as error:
        if item.get_closest_marker("gpu") and "was asked for but can't serve these weights" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def served_by(backend, device):
    """Within it, tensors are made on the device, and the backend serves them."""
    reason = reason_against(backend, device)
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    if device != "cpu":
        torch.set_default_device(device)
    try:
        with use_backend(backend):
            yield backend
    finally:
        torch.set_default_device(None)


@pytest.fixture
def backend(request):
    """Runs the test once for each backend that serves here."""
    yield from served_by(*request.param)


@pytest.fixture
def kernels(request):
    """Runs the test on each of the native kernels."""
    yield from served_by(*request.param)
