"""These tests run in triton's interpreter, in a process of their own: it is chosen when kernels are decorated.

`tests/triton_backend/test_numbers.py` starts that process; on its own, TRITON_INTERPRET=1 and OPENBLAS_NUM_THREADS=1 (a tile
is seven times faster on one thread) must be set.
"""

import os

import pytest
import torch

from ortho_kernels.backends.triton.launch import KernelCall

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]


def form(value, specialized, aligned):
    """What triton compiles for, of one argument: its type, and its value and alignment where it specializes on them."""
    if isinstance(value, tuple):
        return tuple(form(each, specialized, aligned) for each in value)
    if isinstance(value, torch.Tensor):
        return value.dtype, aligned and value.data_ptr() % 16 == 0
    if isinstance(value, int):
        return -(2**31) <= value < 2**31, specialized and (value == 1, value % 16 == 0)
    return type(value)


def forms(kernel, arguments):
    options = kernel.kwargs
    varying = options["do_not_specialize"] or ()
    anywhere = options["do_not_specialize_on_alignment"] or ()
    return {
        name: form(value, name not in varying, name not in (*varying, *anywhere))
        for name, value in zip(kernel.arg_names, arguments, strict=False)  # without META
    }


class CompiledKernel:
    """Stands for a compiled kernel. Such a one takes any arguments as what it was compiled for; this one refuses others."""

    def __init__(self, call):
        self.kernel, self.keywords, self.forms = call.kernel, call.keywords, forms(call.kernel, call.arguments)

    def __getitem__(self, grid):
        def launch(*arguments):
            own = arguments[: len(self.forms)]
            assert forms(self.kernel, own) == self.forms, f"{self.kernel.__name__} was compiled for other arguments"
            self.kernel[grid](*own, **self.keywords)

        return launch


@pytest.fixture(autouse=True)
def later_launches_go_to_compiled_kernels(monkeypatch):
    """As on a GPU, where what the first launch was compiled for serves all later ones."""
    interpret = KernelCall.run

    def run(call):
        interpret(call)
        return CompiledKernel(call)

    monkeypatch.setattr(KernelCall, "run", run)
