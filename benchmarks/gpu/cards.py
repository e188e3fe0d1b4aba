"""Public figures of GPUs, for the roofline model. Rates are dense (no sparsity), in operations a second at boost clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU. `peak` by unit: `float32` outside the tensor cores, `tf32` and `bfloat16` on them, `float64` on the faster."""

    title: str
    multiprocessors: int
    clock: float  # a second
    bandwidth: float  # of its memory, bytes a second
    l2_bytes: int
    peak: dict[str, float]
    mma_share: float  # of the tensor cores' peak that `mma.sync`, the instruction of the kernels, reaches

    @property
    def l2_bandwidth(self) -> float:
        """Bytes a second between L2 and all multiprocessors: 64 a clock each (NVIDIA A100 paper, "L2 cache")."""
        return 64 * self.multiprocessors * self.clock

    def rate(self, unit: str) -> float:
        """Operations a second that the kernels can reach on a unit."""
        return self.peak[unit] * (self.mma_share if unit in ("tf32", "bfloat16") else 1.0)


def _card(title, multiprocessors, megahertz, gigabytes, l2_megabytes, float32, float64, tf32, bfloat16, mma_share=1.0):
    peak = {"float32": float32, "float64": float64, "tf32": tf32, "bfloat16": bfloat16}
    peak = {unit: 1e12 * rate for unit, rate in peak.items()}
    return Card(title, multiprocessors, 1e6 * megahertz, 1e9 * gigabytes, l2_megabytes * 10**6, peak, mma_share)


# From NVIDIA's papers on each architecture (A100: "NVIDIA A100 Tensor Core GPU Architecture"; H100: "NVIDIA H100 Tensor
# Core GPU Architecture"; H200: its datasheet; RTX 3090: "NVIDIA Ampere GA102 GPU Architecture", appendix A; RTX 4090:
# "NVIDIA Ada GPU Architecture", appendix A) and, for B200, from the HGX B200's published rates at 1000 W.
#
# The peaks of Hopper's and of Blackwell's data center tensor cores are those of wgmma and tcgen05. On H100 `mma.sync` was
# measured to reach 0.63 of the peak (arXiv 2402.13499). For B200 we know of no published figure: the model assumes that a
# multiprocessor does as much with it in a clock as H100's does.
_HOPPER_MMA, _BLACKWELL_MMA = 0.63, 0.32

CARDS = {
    "a100": _card("A100 SXM 80 GB", 108, 1410, 2039, 40, 19.5, 19.5, 156, 312),
    "h100": _card("H100 SXM 80 GB", 132, 1830, 3352, 50, 66.9, 66.9, 494.7, 989.4, _HOPPER_MMA),
    "h200": _card("H200 SXM 141 GB", 132, 1830, 4800, 50, 66.9, 66.9, 494.7, 989.4, _HOPPER_MMA),
    "b200": _card("HGX B200", 148, 1850, 8000, 126, 80, 40, 1100, 2250, _BLACKWELL_MMA),
    "rtx4090": _card("RTX 4090", 128, 2520, 1008, 72, 82.6, 1.29, 82.6, 165.2),
    "rtx3090": _card("RTX 3090", 82, 1695, 936, 6, 35.6, 0.556, 35.6, 71.2),
}
