"""FSDP2: weights, gradients and optimizer states shared out over the processes."""

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor


def shard(module: nn.Module, mesh: DeviceMesh) -> None:
    """Gathers weights block by block: each of a Sequential's or ModuleList's members that has weights is a block, the
    innermost first; what belongs to no block is gathered with the whole."""
    for child in module.children():
        if any(True for _ in child.parameters()):
            shard_blocks(child, mesh)
    fully_shard(module, mesh=mesh)


def shard_blocks(module: nn.Module, mesh: DeviceMesh) -> None:
    is_list = isinstance(module, (nn.Sequential, nn.ModuleList))
    for child in module.children():
        if not any(True for _ in child.parameters()):
            continue
        if is_list and list(child.children()):
            fully_shard(child, mesh=mesh)
        else:
            shard_blocks(child, mesh)


def local_part(value: Tensor) -> Tensor:
    """Of a sharded tensor this process's part, else all of it."""
    return value.to_local() if isinstance(value, DTensor) else value
