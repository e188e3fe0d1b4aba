"""The kernels. Importing them imports triton."""

from typing import Any

from triton.runtime.jit import JITFunction

from .power_iteration import apply_residuals, begin_iteration, combine_sums, finish_iteration
from .product import residual_products, spread_residuals
from .rank_update import rank_updates
from .residual import residuals

KERNELS = (
    residuals, spread_residuals, residual_products, begin_iteration, apply_residuals, combine_sums, finish_iteration,
    rank_updates,
)  # fmt: skip


def fix_cache_key(function: Any) -> None:
    """Has triton compute a function's key after those of all functions that it calls.

    The key that triton 3.6 computes names the constants only of functions whose keys it knows already. So it would depend on
    what was launched before, and a process could miss in the cache what another has compiled.
    """
    for name in function.fn.__code__.co_names:
        inner = function.fn.__globals__.get(name)
        if isinstance(inner, JITFunction):
            fix_cache_key(inner)
    _ = function.cache_key


for _kernel in KERNELS:
    if isinstance(_kernel, JITFunction):  # the interpreter has functions of its own
        fix_cache_key(_kernel)

__all__ = [
    "KERNELS", "apply_residuals", "begin_iteration", "combine_sums", "finish_iteration", "rank_updates",
    "residual_products", "residuals", "spread_residuals",
]  # fmt: skip
