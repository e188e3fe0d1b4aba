"""Batch normalization over the batches of all processes, on any device (torch's own is for GPUs alone)."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .collectives import sum_over_processes


class SyncBatchNorm(_BatchNorm):
    """Mean and variance of the joint batch; gradients flow through the statistics of every process, as they would in
    one process. All processes hold batches of one size."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        axes = [0, *range(2, x.dim())]
        ranks = dist.get_world_size()
        values = x if x.dtype == torch.float64 else x.float()
        # Two passes: the mean first, then squares of what is left, which don't cancel.
        mean = sum_over_processes(values.mean(axes)) / ranks
        shape = [1, -1, *[1] * (x.dim() - 2)]
        centered = values - mean.view(shape)
        variance = sum_over_processes(centered.square().mean(axes)) / ranks
        self._track(mean.detach(), variance.detach(), ranks * x.numel() // x.shape[1])
        normalized = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected an input of 2 or more dimensions; got {input.dim()}")

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum, the mean over all batches; a tensor, which the host doesn't wait for.
        share = self.num_batches_tracked.to(mean.dtype).reciprocal() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def convert_batch_norms(module: nn.Module, on_gpu: bool) -> nn.Module:
    """The module with its batch norms replaced by ones that see all processes; names and values stay."""
    if on_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncBatchNorm):
            replacement = SyncBatchNorm(
                child.num_features, child.eps, child.momentum, child.affine, child.track_running_stats
            )
            replacement.load_state_dict(child.state_dict())
            for parameter, new in zip(child.parameters(), replacement.parameters(), strict=True):
                new.requires_grad_(parameter.requires_grad)
            setattr(module, name, replacement.train(child.training))
        else:
            convert_batch_norms(child, on_gpu)
    return module
