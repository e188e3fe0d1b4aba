"""A GPU that is pretended: its tensors say that they are on `cuda:0`, and the CPU computes them.

So code for a GPU runs where none is, with real numbers, and what only a GPU would notice is noticed:

- an operation on tensors of the device and of the host together
- a generator of the other device
- an operation that has no kernel for CUDA, where torch is built for CUDA
- values that are read before their copy to the host has arrived: until then they are not there
- pinned memory that is written to while its copy to the device is under way

What it can't show: the numbers of a GPU's own kernels, its memory, several GPUs, CUDA graphs, what torch compiles.
"""

import pytest
import torch

from .computing import PretendedGpu

only_without_a_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: tests marked gpu ask it")

__all__ = ["PretendedGpu", "only_without_a_gpu"]
