"""What `doctor --gpu` runs on each GPU: numbers of every dtype, the same bits twice, and a captured step replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from . import functional
from .backends.registry import reason_against, use_backend

BACKENDS = ("cuda", "triton", "torch")
# Largest errors, relative in norm: of values, and of gradients, which are rounded to the weight's dtype.
VALUES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-5, torch.float16: 1e-5}
GRADIENTS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 5e-4}
# Plain float32 loses the digits of the Gram's diagonal that 1 takes away.
PLAIN = 5e-4

Check = Callable[[str, str, torch.dtype], dict[str, float]]


def describe_devices() -> dict[str, str]:
    """Each GPU's name, compute capability, multiprocessors and memory."""
    facts = {}
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        facts[f"cuda:{index}"] = (
            f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}, {gpu.multi_processor_count} multiprocessors, "
            f"{gpu.total_memory / 2**30:.0f} GiB"
        )
    return facts


def run(check: Check) -> Iterator[tuple[str, str, bool]]:
    """Title, finding and whether it is good, of each check on each GPU. `check(backend, device, dtype)` returns errors."""
    for index in range(torch.cuda.device_count()):
        device = f"cuda:{index}"
        with torch.cuda.device(index):
            for backend in BACKENDS:
                for dtype in VALUES:
                    title = f"{backend}, {str(dtype).removeprefix('torch.')}, {device}"
                    compute = torch.float64 if dtype is torch.float64 else torch.float32
                    reason = reason_against(backend, "cuda", compute)
                    if reason is not None:
                        yield title, f"no: {reason}", True
                        continue
                    yield (title, *judge(check(backend, device, dtype), backend, dtype))
                if backend != "torch" and reason_against(backend, "cuda") is None:
                    yield (f"{backend}, steps, {device}", *_steps(backend, device))


def judge(errors: dict[str, float], backend: str, dtype: torch.dtype) -> tuple[str, bool]:
    """The finding in words, and whether all errors are as small as they should be."""

    def limit(name: str) -> float:
        limits = GRADIENTS if "gradients" in name else VALUES
        return max(limits[dtype], PLAIN) if backend == "torch" and dtype is not torch.float64 else limits[dtype]

    good = all(error <= limit(name) for name, error in errors.items())
    worst = max(errors, key=lambda name: errors[name] / limit(name))
    return (
        f"{'works' if good else 'WRONG'}: {errors[worst]:.1e} at most ({worst}; {limit(worst):.0e} is accepted)",
        good,
    )


def _steps(backend: str, device: str) -> tuple[str, bool]:
    """A forward and backward of both penalties: twice, and from a CUDA graph on weights that changed since."""
    generator = torch.Generator("cpu").manual_seed(0)
    shapes = [(64, 3, 7, 7), (300, 700), (128, 64, 3, 3), (5, 33), (257, 96)]  # all layouts of float32

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cpu").to(device)

    weights = [(drawn(*shape) / 8).requires_grad_() for shape in shapes]
    start = [drawn(1, min(len(w), w[0].numel())) for w in weights]
    with use_backend(backend):
        steady = _same(_step(weights, start), _step(weights, start))
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            _step(weights, start)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = _step(weights, start)
        with torch.no_grad():
            for weight in weights:
                weight.mul_(1.25)
        graph.replay()
        replays = _same(captured, _step(weights, start))
    words = f"{'the same bits twice' if steady else 'NOT the same bits twice'}, "
    return words + ("replays from a CUDA graph" if replays else "a CUDA graph replays WRONG"), steady and replays


def _step(weights: Sequence[Tensor], start: Sequence[Tensor]) -> list[Tensor]:
    values = [functional.soft_orthogonality(weights), functional.srip(weights, start=start)]
    return [v.detach() for v in values] + [g for v in values for g in torch.autograd.grad(v, weights)]


def _same(left: Sequence[Tensor], right: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))
