"""Sharded weights of several dtypes in one list: each travels in its own."""

import torch
from ranks import on_ranks

from ortho_kernels import soft_orthogonality

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPE = (6, 10)  # a rank owns none of the only matrix of a dtype


def weights():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator).to(dtype).requires_grad_() for dtype in DTYPES]


def computed(leaves):
    values = soft_orthogonality(leaves, reduction="none")
    return [values.detach(), *torch.autograd.grad(values.sum(), leaves)]


def sharded(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))
    leaves = [distribute_tensor(weight.detach(), mesh, [Shard(0)]).requires_grad_() for weight in weights()]
    values, *gradients = computed(leaves)
    return [values, *(gradient.full_tensor() for gradient in gradients)]


def test_values_and_gradients(tmp_path):
    alone = computed(weights())
    for found in on_ranks(2, tmp_path, sharded):
        for ours, theirs in zip(found, alone, strict=True):
            assert ours.dtype == theirs.dtype
            assert (ours - theirs).norm() <= 2 * torch.finfo(theirs.dtype).eps * theirs.norm()
