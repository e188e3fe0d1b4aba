"""Public figures of GPUs, for the roofline model. Rates are dense (no sparsity), in numbers a second at boost clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU. `flops` by unit: float32 and float64 outside the tensor cores, tf32 and bfloat16 by `mma.sync` on them."""

    title: str
    architecture: tuple[int, int]
    processors: int
    bandwidth: float  # bytes a second
    l2_bytes: int
    flops: dict[str, float]


def _card(title, architecture, processors, gigabytes, l2_megabytes, float32, float64, tf32, bfloat16, mma_share=1.0):
    flops = {"float32": float32, "float64": float64, "tf32": tf32 * mma_share, "bfloat16": bfloat16 * mma_share}
    flops = {unit: 1e12 * rate for unit, rate in flops.items()}
    return Card(title, architecture, processors, 1e9 * gigabytes, l2_megabytes * 10**6, flops)


# From NVIDIA's papers on each architecture (A100: "NVIDIA A100 Tensor Core GPU Architecture", table 3; H100: "NVIDIA H100
# Tensor Core GPU Architecture", table 3; H200: its datasheet; RTX 3090: "NVIDIA Ampere GA102 GPU Architecture", table 9;
# RTX 4090: "NVIDIA Ada GPU Architecture", appendix A) and, for B200, from the HGX B200 datasheet (1000 W).
#
# The peaks of Hopper's and Blackwell's data center tensor cores are for wgmma and tcgen05. The kernels use `mma.sync`, which
# was measured to reach about 0.63 of the peak on H100 (arXiv 2402.13499). For B200 nobody has published a figure that we
# know of: half of H100's share stands for a rate a processor and a clock that has not grown since.
_HOPPER_MMA, _BLACKWELL_MMA = 0.63, 0.32

CARDS = {
    "a100": _card("A100 SXM 80 GB", (8, 0), 108, 2039, 40, 19.5, 9.7, 156, 312),
    "h100": _card("H100 SXM 80 GB", (9, 0), 132, 3352, 50, 66.9, 33.5, 494.7, 989.4, _HOPPER_MMA),
    "h200": _card("H200 SXM", (9, 0), 132, 4800, 50, 66.9, 33.5, 494.7, 989.4, _HOPPER_MMA),
    "b200": _card("HGX B200", (10, 0), 148, 8000, 126, 80, 40, 1100, 2250, _BLACKWELL_MMA),
    "rtx4090": _card("RTX 4090", (8, 9), 128, 1008, 72, 82.6, 1.29, 82.6, 165.2),
    "rtx3090": _card("RTX 3090", (8, 6), 82, 936, 6, 35.6, 0.556, 35.6, 71.2),
}
