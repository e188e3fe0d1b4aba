"""What the layers of a network put out, as tables of features."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .weights import matrices_of

Receive = Callable[[str, Tensor], None]


class LayerOutputs:
    """Hands the output of each named module to `receive(name, features)` at every forward pass within the block.

        with LayerOutputs(network, ["layer1", "layer2"], lambda name, features: covariances[name].update(features)):
            network(images)

    Features are `(samples, channels)`. By default a sample is a picture: maps `(batch, channels, height, width)` and tokens
    `(batch, tokens, channels)` are averaged over positions. With `positions=True` each position is a sample of its own.
    What a one-dimensional convolution puts out last is a map `(batch, channels, length)`.

    Raises ValueError for a name that the network has no module of, and, in the forward pass, TypeError for an output that
    is none of these. Of a tuple the first entry counts.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], receive: Receive, *, positions: bool = False) -> None:
        modules = dict(network.named_modules())
        if missing := [name for name in names if name not in modules]:
            raise ValueError(f"the network has no module {missing[0]!r}; it has {', '.join(list(modules)[1:6])}, ...")
        self._modules = {name: modules[name] for name in names}
        self._receive = receive
        self._positions = positions
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "LayerOutputs":
        for name, module in self._modules.items():
            self._hooks.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._receive(name, as_features(name, module, output, self._positions))

        return hook


def as_features(name: str, module: nn.Module, output: Any, positions: bool = False) -> Tensor:
    """What a module of that name has put out, as `(samples, channels)`; see `LayerOutputs`."""
    output = output[0] if isinstance(output, tuple) else output
    if not isinstance(output, Tensor) or output.ndim < 2:
        form = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"{name} must put out maps, tokens or vectors, a row a picture; got {form}")
    output = output.detach()
    if output.ndim == 2:
        return output
    if output.ndim == 3 and not _ends_with_maps(module, output):
        return output.flatten(0, 1) if positions else output.mean(1)
    maps = output.flatten(2)
    return maps.transpose(1, 2).flatten(0, 1) if positions else maps.mean(2)


def _ends_with_maps(module: nn.Module, output: Tensor) -> bool:
    """Whether an output `(batch, a, b)` is that of a one-dimensional convolution, whose channels stand first."""
    *_, last = None, *matrices_of(module).values()
    return isinstance(last, nn.Conv1d | nn.ConvTranspose1d) and last.out_channels == output.shape[1]
