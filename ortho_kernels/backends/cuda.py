"""The CUDA C++ kernels, in a library and a namespace of their own, and why they can't serve where they can't.

The environment variable ORTHO_KERNELS_CUDA_LIBRARY names another build of the library, so that several can be compared.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path

import torch

from .. import cuda_toolkit, ops

_PACKAGE = Path(__file__).resolve().parent.parent
_VARIABLE = "ORTHO_KERNELS_CUDA_LIBRARY"
_asked = os.environ.get(_VARIABLE)
_LIBRARY = Path(_asked).resolve() if _asked else _PACKAGE / "_cuda.abi3.so"
_BUILD_LOG = _PACKAGE / "_cuda_build_log.txt"
_NAMESPACE = "ortho_kernels_cuda"

_library = torch.library.Library(_NAMESPACE, "DEF")
for _schema in ops.SCHEMAS:
    _library.define(_schema)


@cache
def load() -> str | None:
    """Registers the operators; None if they are there, on a machine without a GPU too, else the reason why they aren't."""
    for variable in ("ORTHO_KERNELS_NO_NATIVE", "ORTHO_KERNELS_NO_CUDA"):
        if os.environ.get(variable, "0") not in ("", "0"):
            return f"{variable} is set"
    if not _LIBRARY.exists():
        return f"{_VARIABLE} is {_asked!r}, which does not exist" if _asked else f"not built: {_why_not_built()}"
    try:
        torch.ops.load_library(str(_LIBRARY))
        _facts()
    except Exception as error:
        return f"failed to load: {error.__cause__ or error}"  # the linker's own words, where torch wraps them
    return None


def reason_against(dtype: torch.dtype) -> str | None:
    """Why these kernels can't serve weights of this compute dtype on the GPU, or None if they can."""
    if _against is not None:
        return _against
    if (0, 0) < _driver < cuda_toolkit.OLDEST_RELEASE:
        return (
            f"the NVIDIA driver supports CUDA {cuda_toolkit.dotted(_driver)} only; the kernels need "
            f"{cuda_toolkit.dotted(cuda_toolkit.OLDEST_RELEASE)} (driver {cuda_toolkit.OLDEST_DRIVER}) or newer: update it"
        )
    if not torch.cuda.is_initialized() and not torch.cuda.is_available():
        return "no GPU that torch can use"
    capability = torch.cuda.get_device_capability()
    if capability < cuda_toolkit.OLDEST:
        return f"the GPU's compute capability is {capability[0]}.{capability[1]}; the kernels need 8.0 or newer"
    machine_code, ptx = _built_for
    if not ptx and not any(cuda_toolkit.runs_on(capability, each) for each in machine_code):
        return f"it is built for another GPU ({_facts()}); this one's is sm_{capability[0]}{capability[1]}"
    return None


def built_for(facts: str) -> tuple[list[tuple[int, int]], bool]:
    """Returns the compute capabilities that a library was built for, and whether it holds PTX, which runs on all."""
    return [(int(major), int(minor)) for major, minor in re.findall(r"\bsm_(\d+)(\d)\b", facts)], "PTX" in facts


def build_facts() -> dict[str, str]:
    """How the library was built, or why it was not."""
    if _against is not None:
        return {"CUDA library": _against}
    return {"CUDA library": f"{_LIBRARY if _asked else _LIBRARY.name}, {_facts()}"}


def _facts() -> str:
    """Returns what the library says of itself, such as `nvcc 13.0 for sm_80, sm_90 + PTX`."""
    try:
        facts = ctypes.CDLL(str(_LIBRARY)).ortho_kernels_cuda_facts
    except AttributeError:
        raise RuntimeError(f"{_LIBRARY} is no build of the CUDA kernels") from None
    facts.restype = ctypes.c_char_p
    return facts().decode()


def _driver_release() -> tuple[int, int]:
    """The newest CUDA that the NVIDIA driver supports; (0, 0) without a driver."""
    version = ctypes.c_int(0)
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return 0, 0
    return version.value // 1000, version.value % 1000 // 10


def _why_not_built() -> str:
    if _BUILD_LOG.exists():
        return _BUILD_LOG.read_text().partition("\n")[0]
    return (
        f"{_LIBRARY.name} is missing; `pip install -e . --no-build-isolation` builds it where nvcc and a CUDA torch are"
    )


# At import, so that a compiled step finds constants.
_against = load()
_built_for = built_for(_facts() if _against is None else "")
_driver = _driver_release() if _against is None else (0, 0)
_operators = getattr(torch.ops, _NAMESPACE)
soft_orthogonality = _operators.soft_orthogonality.default
soft_orthogonality_backward = _operators.soft_orthogonality_backward.default
srip = _operators.srip.default
srip_backward = _operators.srip_backward.default
