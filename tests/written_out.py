"""The penalty of a model's weights in plain torch, for the training loops that a penalty is held against."""

import torch
from truth import residual, sigma

from ortho_kernels import ops
from ortho_kernels.penalty.start import entry_keys


def written_penalty(model, names, kind, step=0):
    """The sum over the weights of these names, with its graph: SO, or SRIP from the class's start vectors of that step."""
    return torch.stack([written_value(name, model.get_parameter(name), kind, step) for name in names]).sum()


def written_value(name, weight, kind, step):
    """That of one weight."""
    W = weight.flatten(1)
    if kind == "so":
        return residual(W, "small").square().sum()
    return sigma(W, start_vector(name, W, step))


def start_vector(name, W, step):
    """Where SRIP begins at that step, by the class's seed."""
    vector = ops.start_vectors(entry_keys(0, name, min(W.shape)), torch.tensor(step, device="cpu"))
    return vector.to(W)
