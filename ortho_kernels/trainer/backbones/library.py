"""Any network of timm or torchvision by its name, with random weights unless its options ask for trained ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainerError, Unavailable, did_you_mean
from ..options import option
from .base import Backbone


class Wrapped(nn.Module):
    """A network of another library, and the length of its feature vectors."""

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


@dataclass
class Timm(Backbone):
    name: str = "timm"
    model: str = option("convnext_atto", "a name of timm.list_models()")
    options: dict[str, Any] = option({}, "what timm.create_model takes: {img_size: 32, ...}")

    def build(self, channels: int, size: int) -> nn.Module:
        return _wrap(self.library_network(channels, size), self, channels, size)

    def library_network(self, channels: int, size: int) -> nn.Module:
        import timm  # takes its time, and few runs need it

        _check_name(self, timm.list_models())
        with building(self, cache="HF_HOME", option="pretrained"):
            return timm.create_model(self.model, in_chans=channels, num_classes=0, **self.options)

    def trained_network(self, channels: int, size: int) -> nn.Module:
        import timm

        _check_name(self, timm.list_models())
        options = {**self.options, "pretrained": True}
        with building(self, cache="HF_HOME"):
            return timm.create_model(self.model, in_chans=channels, num_classes=0, **options)


@dataclass
class Torchvision(Backbone):
    name: str = "torchvision"
    model: str = option("mobilenet_v3_small", "a name of torchvision.models.list_models()")
    options: dict[str, Any] = option({}, "what that network takes: {image_size: 32, ...}")

    def build(self, channels: int, size: int) -> nn.Module:
        return _wrap(self.library_network(channels, size), self, channels, size)

    def library_network(self, channels: int, size: int) -> nn.Module:
        """Without its last linear layer, and with as many input channels as the data has."""
        from torchvision import models

        _check_name(self, models.list_models(module=models))
        with building(self, cache="TORCH_HOME", option="weights"):
            network = models.get_model(self.model, **{"weights": None, **self.options})
        linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
        _replace(network, linear[-1], nn.Identity())
        name, stem = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
        if stem.in_channels != channels:
            form: dict[str, Any] = {"kernel_size": stem.kernel_size, "stride": stem.stride, "padding": stem.padding}
            _replace(network, name, nn.Conv2d(channels, stem.out_channels, bias=stem.bias is not None, **form))
        return network

    def trained_network(self, channels: int, size: int) -> nn.Module:
        from torchvision import models

        _check_name(self, models.list_models(module=models))
        with building(self, cache="TORCH_HOME"):
            return models.get_model(self.model, **{**self.options, "weights": "DEFAULT"})


@contextmanager
def building(settings: Any, cache: str, option: str | None = None) -> Iterator[None]:
    """Turns what the library raises into an error that says what to do: `option` of backbone.options, or init, asks for
    trained weights, which the library keeps in the folder `cache`. In every library that fetches them, a file that
    can't be read and a server that can't be reached are OSErrors."""
    options = "backbone.options" if option else "init=pretrained"
    try:
        yield
    except OSError as error:
        cause = error.__cause__ or error
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        left_out = f"{option} out of the options" if option else "init out"
        raise Unavailable(
            f"{settings.name} cannot get the weights of {settings.model} that {options} asks for ({reason}): connect to the "
            f"network, set {cache} to a folder that holds them, or leave {left_out}."
        ) from None
    except KeyError as error:  # of a table of layers, weights, ...
        raise TrainerError(
            f"{settings.name} cannot build {settings.model} with {options}: it knows no {error}."
        ) from None
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise TrainerError(
            f"{settings.name} cannot build {settings.model} with {options}: {shorten(str(error), 300)}"
        ) from None


def _replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(owner), attribute, layer)


def _wrap(network: nn.Module, settings: Any, channels: int, size: int) -> Wrapped:
    """Tries the network on two images, which also gives the length of its features."""
    training = network.training
    try:
        with torch.no_grad():
            features = network.eval()(torch.zeros(2, channels, size, size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise TrainerError(
            f"{settings.model} cannot take images of {size} x {size} pixels ({str(error).splitlines()[0]}): "
            "give its own size by backbone.options (timm: img_size; torchvision: image_size), or another data.size."
        ) from None
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise TrainerError(f"{settings.model} gives no single feature vector an image; choose another backbone.model.")
    return Wrapped(network.train(training), features.shape[1])


def _check_name(settings: Any, known: list[str]) -> None:
    if settings.model not in known:
        raise TrainerError(f"{settings.name} has no model {settings.model}.{did_you_mean(settings.model, known)}")
