"""A convolution's orthogonality against conv2d, on ResNet-50's 3 x 3 kernels: `python -m benchmarks.convolutions`.

One forward and backward over one kernel, float32: with all 25 shifts, and with the 9 of the released code at stride 1. Both
sides get the kernel in both memory formats, and the better of the two counts. Every result is checked against float64 before
anything is timed. All run in one interleaved series, and minima are told.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ortho_kernels import convolution_orthogonality
from ortho_kernels.compat import deconv_orth_dist

from .measure import relative_errors, true_results
from .model_shapes import resnet50

CHANNELS = Counter(shape[0] for shape in resnet50() if shape[2:] == (3, 3))  # of square kernels, and how many there are
FORMATS = (torch.contiguous_format, torch.channels_last)
ERROR = 1e-4  # of a value or a gradient, relative

Penalty = Callable[[Sequence[Tensor]], Tensor]


def by_conv2d(kernels: Sequence[Tensor], padding: int) -> Tensor:
    [K] = kernels
    output = conv2d(K, K, padding=padding)
    target = torch.zeros_like(output)
    target[:, :, padding, padding] = torch.eye(len(K), dtype=K.dtype)
    return (output - target).square().sum()


# By shifts: what is measured against what.
PENALTIES: dict[int, tuple[Penalty, Penalty]] = {
    25: (convolution_orthogonality, lambda kernels: by_conv2d(kernels, padding=2)),
    9: (
        lambda kernels: deconv_orth_dist(kernels[0], stride=1, padding=1),
        lambda kernels: by_conv2d(kernels, padding=1).sqrt(),
    ),
}


def measure(channels: int, shifts: int, seconds: float, at_least: int = 3) -> tuple[float, float]:
    """The least seconds of one forward and backward: ours, and conv2d's."""
    kernel = torch.nn.init.kaiming_normal_(torch.empty(channels, channels, 3, 3))
    given = [kernel.clone(memory_format=form).requires_grad_() for form in FORMATS]
    true = true_results(PENALTIES[shifts][1], given[:1])
    for penalty in PENALTIES[shifts]:
        for leaf in given:
            value = penalty([leaf])
            error = max(relative_errors((value, torch.autograd.grad(value, [leaf])), true))
            assert error < ERROR, f"wrong by {error:.1e}"
    least = [float("inf"), float("inf")]
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < at_least or time.perf_counter() < end:
        rounds += 1
        for leaf in given:
            for who, penalty in enumerate(PENALTIES[shifts]):
                start = time.perf_counter()
                torch.autograd.grad(penalty([leaf]), leaf)
                least[who] = min(least[who], time.perf_counter() - start)
    return least[0], least[1]


def main(arguments: Sequence[str] = ()) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolutions", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="for each kernel and number of shifts (default: 10)"
    )
    parser.add_argument("--channels", type=int, nargs="+", default=sorted(CHANNELS), choices=sorted(CHANNELS))
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; milliseconds of one forward and backward")
    print(f"{'shifts':>6} {'kernels':>24} {'conv2d':>9} {'ours':>9} {'ratio':>6}")
    for shifts in PENALTIES:
        total = [0.0, 0.0]
        for channels in options.channels:
            ours, theirs = (1e3 * each for each in measure(channels, shifts, options.seconds))
            count = CHANNELS[channels]
            total = [total[0] + count * ours, total[1] + count * theirs]
            kernels = f"{count} of {channels} x {channels} x 3 x 3"
            print(f"{shifts:6} {kernels:>24} {theirs:9.2f} {ours:9.2f} {theirs / ours:5.1f}x", flush=True)
        print(
            f"{shifts:6} {'all of these':>24} {total[1]:9.2f} {total[0]:9.2f} {total[1] / total[0]:5.1f}x", flush=True
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
