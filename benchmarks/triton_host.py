"""`python -m benchmarks.triton_host` measures what a call of each Triton operator takes of the host, without a GPU.

Triton's driver is replaced by one that launches nothing. Beside our own part stands that of triton's launch, but not what
the driver of a GPU takes.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import torch

from ortho_kernels import ops
from ortho_kernels.backends.triton import operators
from ortho_kernels.backends.triton.launch import Launch
from ortho_kernels.weight_views import gradient_slots, weight_views

from .launch_without_gpu import stand_in_for_gpu
from .weight_sets import MODELS, weights_of


def calls(model: str, dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """The operators over a model's weights, gradients in one buffer; and the look-up of the views that comes before each."""
    weights = [weight.detach() for weight in weights_of(model, dtype=dtype)]
    views = weight_views(weights, 1)
    layout = weights, views.groups, views.sides("small")
    ones, wanted = torch.ones(views.matrix_count), [1] * len(weights)
    start = torch.randn(sum(views.orders("small")))
    gradients = ops.in_one_buffer(gradient_slots(weights), views.device)
    into = gradients, wanted, False
    _, residuals = operators.soft_orthogonality(*layout, 1.0, 1.0, True)
    _, vectors = operators.srip(*layout, start, 2, True, True)
    return {
        "views": lambda: weight_views(weights, views.groups),
        "SO forward": lambda: operators.soft_orthogonality(*layout, 1.0, 1.0, True, views=views),
        "SO backward": lambda: operators.soft_orthogonality_backward(ones, *layout, residuals, 0, *into, views=views),
        "SRIP forward": lambda: operators.srip(*layout, start, 2, True, True, views=views),
        "SRIP backward": lambda: operators.srip_backward(ones, *layout, vectors, 2, *into, views=views),
    }


def microseconds(call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The least of all rounds and their median."""
    call()
    gc.collect()
    gc.disable()
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        taken.append(1e6 * (time.perf_counter() - begin))
    gc.enable()
    return min(taken), statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.triton_host", description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="resnet50")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--architecture", default="sm_90")
    parser.add_argument("--rounds", type=int, default=1000)
    options = parser.parse_args()
    stand_in_for_gpu(options.architecture)
    found = calls(options.model, getattr(torch, options.dtype))
    whole = {name: microseconds(call, options.rounds) for name, call in found.items()}
    Launch.run = lambda self, *arguments, **keywords: None
    own = {name: microseconds(call, options.rounds) for name, call in found.items()}
    print(f"us a call over {options.model}, {options.dtype}   ours: least, median     with the launch: least, median")
    for name in found:
        print(f"{name:40}{own[name][0]:12.1f}{own[name][1]:8.1f}{whole[name][0]:24.1f}{whole[name][1]:8.1f}")


if __name__ == "__main__":
    main()
