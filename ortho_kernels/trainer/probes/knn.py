"""Weighted kNN on frozen features (Wu et al., CVPR 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbors: int, temperature: float
) -> Tensor:
    """Votes `(queries, classes)` of the nearest neighbors by cosine, each weighted by exp(cosine / temperature)."""
    bank = F.normalize(bank, dim=1)
    votes = []
    for chunk in F.normalize(queries, dim=1).split(1000):
        cosine, nearest = (chunk @ bank.T).topk(min(neighbors, len(bank)), dim=1)
        weight = ((cosine - 1) / temperature).exp()
        votes.append(torch.zeros(len(chunk), classes).scatter_add_(1, labels[nearest], weight))
    return torch.cat(votes)
