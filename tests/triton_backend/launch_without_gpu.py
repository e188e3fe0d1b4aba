"""Launches all operators on a GPU that isn't there, up to where it would run; prints a JSON line for each kernel.

Arguments: the architecture, the dtype, the shapes. Triton's driver is replaced: it loads and launches nothing.
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


def main(architecture, dtype, *shapes):
    driver.set_active(Driver(architecture))
    knobs.compilation.listener = note
    tables.device_facts = lambda device: DeviceFacts(architecture, 132)
    weights = [torch.randn([int(part) for part in shape.split("x")]).to(getattr(torch, dtype)) for shape in shapes]
    groups = [1] * len(weights)
    sides = [int(len(weight) > weight[0].numel()) for weight in weights]
    ones = torch.ones(len(weights))
    _, residuals = operators.soft_orthogonality(weights, groups, sides, 1.0, 1.0, True)
    operators.soft_orthogonality_backward(ones, weights, groups, sides, residuals, 0, groups)
    order = tables.tables_for(weights, groups, sides).plan.total_order
    _, vectors = operators.srip(weights, groups, sides, torch.randn(order + 1)[1:], 2, True, True)
    operators.srip_backward(ones, weights, groups, sides, vectors, 2, groups)


if __name__ == "__main__":
    main(*sys.argv[1:])
