"""`python -m benchmarks.launch_without_gpu ARCHITECTURE DTYPE LIST...` launches all operators on a GPU that isn't there.

A list is of shapes, such as 64x64,10x16. Triton's driver is replaced: it loads and launches nothing. Prints a JSON line for
each kernel that is compiled, or found in triton's cache.
"""

import json
import sys
from types import SimpleNamespace

import torch
from triton import knobs
from triton.runtime.driver import driver

from ortho_kernels.backends.triton import operators, tables
from ortho_kernels.backends.triton.ahead_of_time import Target
from ortho_kernels.backends.triton.device import DeviceFacts


class Driver(Target):
    utils = SimpleNamespace(
        get_device_properties=lambda device: {"max_shared_mem": 227 * 1024},
        load_binary=lambda *arguments: (object(), object(), 0, 0, 1024),
        unload_module=lambda module: None,
    )

    @staticmethod
    def launcher_cls(source, metadata):
        return lambda *arguments: None


def note(src, metadata, cache_hit, **rest):
    print(json.dumps({"kernel": metadata["name"], "hash": metadata["hash"], "cache_hit": cache_hit}), flush=True)


def launch_all(weights):
    groups, sides = [1] * len(weights), [int(len(weight) > weight[0].numel()) for weight in weights]
    factors = torch.ones(len(weights))
    gradients = [torch.empty_like(weight) for weight in weights]
    order = tables.weight_place(weights, groups, sides).device.plan.total_order
    _, residuals = operators.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True)
    _, vectors = operators.srip(weights, groups, sides, torch.randn(order + 1)[1:], 2, True, True)
    views = weights, groups, sides
    for accumulate in (False, True):
        into = gradients, groups, accumulate
        operators.soft_orthogonality_backward(factors, *views, residuals, 0, *into)
        operators.srip_backward(factors, *views, vectors, 2, *into)


def stand_in_for_gpu(architecture):
    """From here on tensors in main memory are served as if they were on a GPU, up to where it would run."""
    driver.set_active(Driver(architecture))
    tables.device_facts = lambda device: DeviceFacts(architecture, 132)


def main(architecture, dtype, *lists):
    stand_in_for_gpu(architecture)
    knobs.compilation.listener = note
    for shapes in lists:
        sizes = [[int(part) for part in shape.split("x")] for shape in shapes.split(",")]
        launch_all([torch.randn(size).to(getattr(torch, dtype)) for size in sizes])


if __name__ == "__main__":
    main(*sys.argv[1:])
