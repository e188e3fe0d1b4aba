"""The penalty of a model's weights in plain torch, for the training loops that a penalty is held against."""

import torch
from truth import residual, sigma

from ortho_kernels import ops
from ortho_kernels.penalty.start import entry_keys


def written_penalty(model, names, kind, step=0):
    """The sum over the weights of these names, with its graph: SO, or SRIP from the class's start vectors of that step."""
    parts = []
    for name in names:
        W = model.get_parameter(name).flatten(1)
        if kind == "so":
            parts.append(residual(W, "small").square().sum())
        else:
            start = ops.start_vectors(entry_keys(0, name, min(W.shape)), torch.tensor(step, device="cpu"))
            parts.append(sigma(W, start.to(W)))
    return torch.stack(parts).sum()
