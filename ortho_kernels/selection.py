"""Which weights of a model are penalized: those of its conv and linear layers, narrowed by patterns of their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd


def choose_weights(
    encoder: nn.Module, include: str | Iterable[str] | None, exclude: str | Iterable[str] | None
) -> tuple[str, ...]:
    """The names of the weights to cover; `ValueError` where there are none, with what the encoder holds instead."""
    found: dict[str, Tensor] = {}
    for path, module in encoder.named_modules():
        for attribute in _weight_names(module):
            weight = getattr(module, attribute)
            name = f"{path}.{attribute}" if path else attribute
            if nn.parameter.is_lazy(weight):
                raise ValueError(f"{name} is not initialized yet; run one batch through the encoder first")
            found[name] = weight
    included = _matching(found, include, "include") if include is not None else set(found)
    excluded = _matching(found, exclude, "exclude") if exclude is not None else set()
    seen: set[int] = set()
    chosen = []
    for name, weight in found.items():
        if name in included and name not in excluded and id(weight) not in seen:
            seen.add(id(weight))  # a weight that two layers share counts once
            chosen.append(name)
    if not chosen:
        held = Counter(type(module).__name__ for module in encoder.modules())
        holds = ", ".join(f"{count} {kind}" for kind, count in held.items())
        raise ValueError(
            "the encoder has no conv or linear weight to penalize"
            + (f" (include and exclude leave none of: {abridged(tuple(found))})" if found else "")
            + f"; it holds {holds}"
        )
    return tuple(chosen)


def fused_projections(weight: Tensor, name: str) -> int:
    """How many square matrices lie one above the other in a weight of this name: 3 in a fused query, key and value
    projection (`qkv.weight` of timm, `in_proj_weight` of torch), else 1."""
    layer, _, attribute = name.rpartition(".")
    named = attribute == "in_proj_weight" or (attribute == "weight" and layer.rpartition(".")[2] == "qkv")
    return 3 if named and weight.dim() == 2 and weight.shape[0] % 3 == 0 else 1


def abridged(names: Sequence[str], most: int = 6) -> str:
    """The first names and the last, for people."""
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join([*names[: most - 1], "...", names[-1]])


def _weight_names(module: nn.Module) -> tuple[str, ...]:
    """The attributes of a module that hold matrices."""
    if isinstance(module, nn.MultiheadAttention):  # its output projection is a linear layer of its own
        if module.in_proj_weight is not None:
            return ("in_proj_weight",)
        return ("q_proj_weight", "k_proj_weight", "v_proj_weight")
    return ("weight",) if isinstance(module, (_ConvNd, nn.Linear)) else ()


def _matching(names: Iterable[str], patterns: str | Iterable[str], option: str) -> set[str]:
    """The names that any of the patterns matches, as a whole or as the layer they belong to."""
    names = list(names)
    matched = set()
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        hits = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)}
        if not hits:
            raise ValueError(f"{option} pattern {pattern!r} matches none of the weights: {abridged(tuple(names))}")
        matched |= hits
    return matched
