"""The batch norm behind a layer, and the layer with it folded in."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .forward_passes import forward_passes


def following_batch_norms(network: nn.Module, images: Tensor) -> dict[str, str]:
    """The batch norm that takes the output of each convolution and linear layer, by the names of both.

    Found in a forward pass: a norm follows a layer if its input is the tensor that the layer has put out, unchanged. So no
    tracing is needed, and a norm behind a sum, an activation or a concatenation follows no layer. The outputs of all
    layers are held meanwhile, so a picture or two are enough.
    """
    outputs: dict[int, tuple[str, Tensor, int]] = {}  # by identity; the tensor is held, so that no other gets it
    pairs: dict[str, str] = {}

    def layer_hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[id(output)] = (name, output, output._version)

        return hook

    def norm_hook(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            found = outputs.get(id(inputs[0])) if inputs else None
            if found is not None and found[1]._version == found[2]:  # else changed in place, as by a ReLU
                pairs[found[0]] = name

        return hook

    hooks = [
        module.register_forward_hook(layer_hook(name))
        for name, module in network.named_modules()
        if isinstance(module, _ConvNd | nn.Linear)
    ] + [
        module.register_forward_pre_hook(norm_hook(name))
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        forward_passes(network, images)
    finally:
        for each in hooks:
            each.remove()
    return pairs


def folded_weight(layer: Any, norm: Any) -> Tensor:
    """The layer's weight in float64 with each output channel times gamma / sqrt(running variance + eps).

    With the matching bias, the layer alone then puts out what layer and norm do in evaluation mode.

    Raises:
        ValueError: for a norm without running statistics, which scales every batch anew.
    """
    if norm.running_var is None:
        raise ValueError("a batch norm without running statistics scales every batch anew: it can't be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    weight = layer.weight.detach().double()
    if isinstance(layer, _ConvTransposeNd):  # (in, out / groups, *kernel)
        scale = scale.reshape(layer.groups, 1, -1).expand(-1, len(weight) // layer.groups, -1).flatten(0, 1)
        return weight * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2)).to(weight.device)
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)).to(weight.device)
