"""The native library: loads it once, or says why not."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

_PACKAGE = Path(__file__).resolve().parent.parent
_LIBRARY = _PACKAGE / "_C.abi3.so"
_BUILD_LOG = _PACKAGE / "_build_log.txt"


@cache
def load() -> str | None:
    """Registers the CPU operators; None if they work, else the reason why they don't."""
    if os.environ.get("ORTHO_KERNELS_NO_NATIVE", "0") not in ("", "0"):
        return "ORTHO_KERNELS_NO_NATIVE is set"
    if not _LIBRARY.exists():
        return f"not built: {_why_not_built()}"
    try:
        if (introspect := _introspect()) is not None:
            introspect.cpu_level()
    except RuntimeError as error:
        return str(error)
    from .. import ops  # noqa: F401  The schemas must be there before the library implements them.

    try:
        torch.ops.load_library(str(_LIBRARY))
    except Exception as error:
        return f"failed to load: {error.__cause__ or error}"  # the linker's own words, where torch wraps them
    return None


def _why_not_built() -> str:
    if _BUILD_LOG.exists():
        return _BUILD_LOG.read_text().partition("\n")[0]
    return f"{_LIBRARY.name} is missing; `pip install -e . --no-build-isolation` builds it"


def _introspect() -> ModuleType | None:
    try:
        from .. import _introspect  # type: ignore[attr-defined]
    except ImportError:
        return None
    return _introspect


def build_facts() -> dict[str, str]:
    """How the library was built and the CPU level it runs at; without it, the reason."""
    if not _LIBRARY.exists():
        return {"library": f"not built: {_why_not_built()}"}
    introspect = _introspect()
    if introspect is None:
        return {"library": _LIBRARY.name, "facts": "none: the introspection module is not built for this Python"}
    facts = {"library": _LIBRARY.name, **introspect.build_facts()}
    facts["CPU levels"] = ", ".join(
        name + ("" if has else " (not on this CPU)") for name, has in introspect.cpu_levels()
    )
    try:
        facts["CPU level"] = introspect.cpu_level()
    except RuntimeError as error:
        facts["CPU level"] = f"none: {error}"
    return facts


def cpu_levels() -> list[str]:
    """The instruction levels that are built and that this CPU has, lowest first; empty if nothing is built."""
    introspect = _introspect()
    return [] if introspect is None else [name for name, has in introspect.cpu_levels() if has]
