"""What the native tests share."""

import shutil

import pytest
from kernel_builds import Kernels

from ortho_kernels import cuda_toolkit


@pytest.fixture(scope="session")
def build_kernels(tmp_path_factory):
    compiler = next((c for c in ("g++", "clang++", "c++") if shutil.which(c)), None)
    if compiler is None:
        pytest.skip("no C++ compiler")
    return Kernels(tmp_path_factory.mktemp("kernels"), compiler)


@pytest.fixture(scope="session")
def toolkit():
    try:
        toolkit = cuda_toolkit.find_toolkit()
        toolkit.supported()
    except cuda_toolkit.ToolkitError as error:
        pytest.skip(str(error))
    return toolkit
