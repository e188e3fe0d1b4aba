"""The penalty of a model's weights in plain torch, for the training loops that a penalty is held against."""

import torch
from truth import residual, sigma

from ortho_kernels import ops
from ortho_kernels.penalty.start import entry_keys


def written_penalty(weights, kind, step=0):
    """The sum over weights by name, with its graph: SO, or SRIP from the class's start vectors of that step."""
    parts = []
    for name, weight in weights.items():
        W = weight.flatten(1)
        if kind == "so":
            parts.append(residual(W, "small").square().sum())
        else:
            start = ops.start_vectors(entry_keys(0, name, min(W.shape)), torch.tensor(step, device="cpu"))
            parts.append(sigma(W, start.to(W)))
    return torch.stack(parts).sum()


def matrices(model, names):
    """The weights of these names: all that the penalty is to cover."""
    return {name: model.get_parameter(name) for name in names}
