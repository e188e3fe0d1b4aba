"""Named parameters in the place of a model: what is penalized where there is no module, or only a part of one is meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .words import shown


class NamedParameters(nn.Module):
    """Parameters under the names that they were given, which may hold dots."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        super().__init__()
        self._parameters.update(parameters)


def as_encoder(given: Any) -> nn.Module:
    """A module as it is; a dict, pairs of names and parameters, or parameters alone as a module that holds them.

    An iterator is consumed here, once.

    Raises:
        TypeError: for anything else.
        ValueError: for no parameters at all, or two of one name.
    """
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, str | bytes | Tensor) or not isinstance(given, Iterable):
        got = "one tensor: wrap it, [weight]" if isinstance(given, Tensor) else shown(given)
        raise TypeError(f"encoder must be an nn.Module, named parameters or a list of parameters; got {got}")
    entries = list(given.items() if isinstance(given, Mapping) else given)
    if not entries:
        raise ValueError("encoder has no parameters: it is empty, or an iterator that was consumed before")
    pairs = [(str(place), entry) if isinstance(entry, Tensor) else entry for place, entry in enumerate(entries)]
    for pair in pairs:
        if not (
            isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Tensor)
        ):
            raise TypeError(
                "encoder must be an nn.Module, named parameters (a dict, or pairs of a name and a parameter) or a list of "
                f"parameters; it holds {shown(pair)}"
            )
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"encoder holds two parameters of the name {twice[0]!r}")
    return NamedParameters(dict(pairs))


def holds_named_parameters(encoder: nn.Module) -> bool:
    """Whether these are parameters that were named one by one, not a model's modules."""
    return isinstance(encoder, NamedParameters | nn.ParameterDict | nn.ParameterList)


def check_named(option: str, given: Any) -> None:
    """Raises `TypeError` for modules and types of them, which named parameters have none of."""
    for one in given if isinstance(given, list | tuple | set | frozenset) else (given,):
        if isinstance(one, nn.Module | type):
            kind = one.__name__ if isinstance(one, type) else f"a {type(one).__name__}"
            raise TypeError(
                f"{option} was given {kind}, but named parameters have no modules: give patterns of names, parameters or "
                "callables"
            )


def vectors(encoder: nn.Module) -> dict[str, str]:
    """The reason against each named parameter that is no matrix."""
    return {
        name: f"of shape {tuple(parameter.shape)}: a vector, no matrix"
        for name, parameter in encoder.named_parameters(remove_duplicate=False)
        if parameter.dim() < 2
    }
