"""The CPU kernels, and how their library was built."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import torch

from .. import extremes  # noqa: F401  registers operators that are made of others
from .kernels import KernelBackend
from .library import PACKAGE, Library


def _introspection() -> ModuleType | None:
    try:
        return import_module("ortho_kernels._introspect")  # compiled: absent where it was not built for this Python
    except ImportError:
        return None


def _check_level() -> None:
    """Raises `RuntimeError` where this CPU has no level that is built, or not the one that is asked for."""
    if (introspection := _introspection()) is not None:
        introspection.cpu_level()


library = Library(
    PACKAGE / "_C.abi3.so", "_build_log.txt", "a C++ compiler", ("ORTHO_KERNELS_NO_NATIVE",), _check_level
)
_against = library.reason_against  # at import, so that a compiled step finds a constant


def cpu_levels() -> list[str]:
    """The instruction levels that are built and that this CPU has, lowest first; empty if nothing is built."""
    introspection = _introspection()
    return [] if introspection is None else [name for name, has in introspection.cpu_levels() if has]


class CpuBackend(KernelBackend):
    name = "cpu"
    device_type = "cpu"
    operators = torch.ops.ortho_kernels
    lacking = ()

    def reason_against(self, dtype: torch.dtype) -> str | None:
        return _against

    def facts(self) -> dict[str, str]:
        """How the library was built and the CPU level it runs at; without it, the reason."""
        if not library.path.exists():
            return {"library": str(library.reason_against)}
        introspection = _introspection()
        if introspection is None:
            return {"library": library.path.name, "facts": "none: _introspect is not built for this Python"}
        facts = {"library": library.path.name, **introspection.build_facts()}
        levels = [name + ("" if has else " (not on this CPU)") for name, has in introspection.cpu_levels()]
        facts["CPU levels"] = ", ".join(levels)
        try:
            facts["CPU level"] = introspection.cpu_level()
        except RuntimeError as error:
            facts["CPU level"] = f"none: {error}"
        return facts
