"""The contrastive loss between two sets of vectors, over the joint batch of all processes."""

import torch
import torch.nn.functional as F
from lightly.utils import dist
from torch import Tensor


def info_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each query's own key among the keys of the joint batch (van den Oord et al. 2018, eq. 4).

    `queries` and `keys` are `(batch, dim)` and need no normalization. Gradients reach whichever of them wants them,
    keys of other processes included.
    """
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    first = dist.rank() * len(queries)
    if dist.world_size() > 1:
        keys = torch.cat(dist.gather(keys))
    own = torch.arange(first, first + len(queries), device=queries.device)
    return F.cross_entropy(queries @ keys.T / temperature, own)
