"""Shared fixtures. Threads must not spin while they wait: on two shared cores that costs 20 ms a call."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

from ortho_kernels.backends.choose import reason_against, use_backend


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="no GPU that torch can use")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=["cpu", "torch"])
def backend(request):
    """Runs the test once for each backend that serves CPU tensors here."""
    reason = reason_against(request.param, "cpu")
    if reason is not None:
        pytest.skip(f"{request.param}: {reason}")
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def kernels():
    """Runs the test on the native CPU kernels."""
    reason = reason_against("cpu", "cpu")
    if reason is not None:
        pytest.skip(f"cpu: {reason}")
    with use_backend("cpu"):
        yield
