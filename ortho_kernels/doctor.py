"""`python -m ortho_kernels.doctor`: which backends work here, why the others don't, and are their numbers right?

`--gpu` checks every GPU more closely, and fails where there is none.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from . import __version__, functional, gpu_checks, reference
from .backends import triton
from .backends.registry import BACKENDS, explain, reason_against, use_backend
from .weight_views import compute_dtype

# Near orthogonality plain float32 loses the digits of the Gram's diagonal that 1 takes away; the kernels keep them.
TOLERANCE = {"torch": 5e-4, "cpu": 1e-5, "cuda": 1e-5, "triton": 1e-5}
_SHAPES = [(64, 3, 3, 3), (16, 16, 1, 1), (40, 8, 5, 5), (10, 130), (257, 96), (1, 7), (7, 1)]


def main(arguments: Sequence[str] = ()) -> int:
    """Prints the report; the exit status is 1 if a backend gives wrong numbers (or `--gpu` finds no GPU), else 0."""
    parser = argparse.ArgumentParser(prog="python -m ortho_kernels.doctor", description=__doc__)
    parser.add_argument(
        "--gpu", action="store_true", help="check every GPU: all dtypes, the same bits twice, CUDA graphs"
    )
    options = parser.parse_args(arguments)
    _section("Versions")
    _row("ortho_kernels", __version__)
    _row(
        "torch",
        f"{torch.__version__} ({torch.get_num_threads()} threads, {torch.get_float32_matmul_precision()} precision)",
    )
    _row("Python", f"{platform.python_version()} on {platform.platform()}")

    _row("triton", triton.describe())

    _section("Native build")
    for serving in BACKENDS.values():
        for name, fact in serving.facts().items():
            _row(name, fact)

    _section("Backends")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    wrong = 0
    for device in devices:
        for backend in BACKENDS:
            reason = reason_against(backend, device)
            if reason is not None:
                _row(f"{backend} on {device}", f"no: {reason}")
                continue
            errors = check(backend, device)
            bad = {name: error for name, error in errors.items() if not error <= TOLERANCE[backend]}
            wrong += bool(bad)
            worst = max(errors, key=lambda name: errors[name])
            verdict = "WRONG" if bad else "works"
            _row(f"{backend} on {device}", f"{verdict}: largest relative error {errors[worst]:.1e} ({worst})")
        _row(f"chosen on {device}", explain(device))
    for name, serving in BACKENDS.items():
        if serving.lacking:
            _row(f"{name} lacks", f"{', '.join(serving.lacking)}: the torch backend serves these, with a warning")
    if not torch.cuda.is_available():
        _row("GPU", "none that torch sees here; nothing was run on one")
        return 1 if wrong or options.gpu else 0

    if options.gpu:
        _section("GPUs")
        for name, fact in gpu_checks.describe_devices().items():
            _row(name, fact)
        for title, finding, good in gpu_checks.run(check):
            _row(title, finding)
            wrong += not good
    return 1 if wrong else 0


def check(backend: str, device: str, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """The backend's errors against the float64 reference, relative in norm: values and gradients of each penalty."""
    generator = torch.Generator("cpu").manual_seed(0)
    # Near orthogonality, where R is a difference of nearly equal numbers, is where precision shows.
    weights = [_near_orthogonal(shape, generator).to(device, dtype) for shape in _SHAPES]
    orders = [min(shape[0], weight[0].numel()) for shape, weight in zip(_SHAPES, weights, strict=True)]
    start = [torch.randn(1, n, generator=generator, device="cpu").to(device, compute_dtype(weights)) for n in orders]
    errors = {}
    for name, compute, define, options in (
        ("so", functional.soft_orthogonality, reference.soft_orthogonality, {}),
        ("srip", functional.srip, reference.srip, {"start": start}),
    ):
        with use_backend(backend):
            value, gradients = _value_and_gradients(compute, weights, options)
        truth, true_gradients = _value_and_gradients(define, [weight.double() for weight in weights], options)
        errors[f"{name} values"] = ((value - truth).norm() / truth.norm()).item()
        errors[f"{name} gradients"] = max(
            ((g - t).norm() / t.norm()).item() for g, t in zip(gradients, true_gradients, strict=True)
        )
    return errors


def _value_and_gradients(
    penalty: Callable[..., Tensor], weights: list[Tensor], options: dict
) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [weight.detach().requires_grad_() for weight in weights]
    values = penalty(leaves, reduction="none", **options)
    return values.detach(), torch.autograd.grad(values.sum(), leaves)


def _near_orthogonal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    weight = torch.empty(shape, device="cpu")
    torch.nn.init.orthogonal_(weight, generator=generator)
    return weight + 1e-3 * torch.randn(shape, generator=generator, device="cpu")


def _section(title: str) -> None:
    print(f"\n{title}")


def _row(name: str, fact: str) -> None:
    print(f"  {name:16} {fact}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
