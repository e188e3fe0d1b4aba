"""A linear probe: logistic regression on frozen features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def linear_probe(features: Tensor, labels: Tensor, classes: int, decay: float) -> nn.Module:
    """Logistic regression by L-BFGS on standardized features; a convex problem, so the start does not matter."""
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    standardized = (features - mean) / std
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(standardized, weight, bias), labels) + 0.5 * decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return _Probe(mean, std, weight.detach(), bias.detach())


class _Probe(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.mean, self.std, self.weight, self.bias = mean, std, weight, bias

    def forward(self, features: Tensor) -> Tensor:
        return F.linear((features - self.mean) / self.std, self.weight, self.bias)
