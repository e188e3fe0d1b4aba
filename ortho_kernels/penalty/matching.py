"""What `include`, `exclude` and `extra` accept, matched against the sites of a model's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import Tensor, nn

from .weight_sites import Site
from .words import abridged, shown


class Sites:
    """The sites of a model, and those that each module and each tensor is a part of."""

    def __init__(self, sites: list[Site]) -> None:
        self.all = sites
        self._of: dict[int, list[Site]] = {}
        for site in sites:
            for part in {id(part) for part in (*site.modules, *site.tensors, site.weight)}:
                self._of.setdefault(part, []).append(site)

    def of(self, part: nn.Module | Tensor) -> list[Site]:
        return self._of.get(id(part), [])


@dataclass(frozen=True)
class Matcher:
    """A pattern, a module type or a callable, in words and as a test of a site."""

    description: str
    matches: Callable[[Site], bool]

    def hits(self, sites: Sites) -> list[Site]:
        return [site for site in sites.all if self.matches(site)]


@dataclass(frozen=True)
class ObjectMatcher:
    """A parameter or a module, wherever it is; where it is gone, what has its place."""

    description: str
    part: nn.Module | Tensor
    places: tuple[str, ...]  # its names or its path

    def hits(self, sites: Sites) -> list[Site]:
        return sites.of(self.part) or [site for site in sites.all if self._has_place(site)]

    def _has_place(self, site: Site) -> bool:
        return any(
            not place or name == place or name.startswith(f"{place}.") for name in site.names for place in self.places
        )


def matchers(
    option: str, given: Any, encoder: nn.Module, sites: Sites, *, within: bool
) -> list[Matcher | ObjectMatcher]:
    """One matcher for each pattern, parameter, module, module type or callable that was given; none for None.

    A pattern matches names of weights and of their layers, and if `within` of all modules that hold them. A parameter or a
    module stands for its place too, once something else has taken that (as FSDP2 and a new head do). A parameter of less
    than two dimensions, such as a bias among `head.parameters()`, matches nothing.

    Raises:
        TypeError: for anything else.
        ValueError: for a tensor that is no parameter of the encoder, or a module that is no part of it.
    """
    if given is None:
        return []
    if isinstance(given, (str, Tensor, nn.Module, type)) or callable(given) or not isinstance(given, Iterable):
        given = (given,)
    found: list[Matcher | ObjectMatcher] = []
    own = {id(parameter) for parameter in encoder.parameters()}
    paths = {id(module): path for path, module in encoder.named_modules()}
    for one in given:
        if isinstance(one, str):
            found.append(Matcher(f"pattern {one!r}", partial(matches_within if within else matches_name, pattern=one)))
        elif isinstance(one, Tensor):
            names = tuple(name for site in sites.of(one) for name in site.names)
            if names:
                found.append(ObjectMatcher(f"parameter {names[0]!r}", one, names))
            elif id(one) not in own:
                raise ValueError(f"{option}: the tensor of shape {tuple(one.shape)} is no parameter of the encoder")
        elif isinstance(one, type):
            found.append(Matcher(one.__name__, partial(_is_within_kind, kind=one)))
        elif isinstance(one, nn.Module):
            if id(one) not in paths:
                raise ValueError(f"{option}: the module {type(one).__name__} is no part of the encoder")
            path = paths[id(one)]
            found.append(ObjectMatcher(f"module {path!r}", one, (path,)))
        elif callable(one):
            found.append(Matcher(shown(one), partial(_passes, test=one)))
        else:
            raise TypeError(
                f"{option} takes patterns of names, parameters, modules, module types and callables of a name and a weight; "
                f"got a {type(one).__name__}"
            )
    return found


def matches_name(site: Site, pattern: str) -> bool:
    """Whether a pattern matches the weight's name, or its layer's, with what wrappers add to it or without."""
    return _matches(site.names, pattern, lambda name: (name, name.rpartition(".")[0]))


def matches_within(site: Site, pattern: str) -> bool:
    """Whether a pattern matches the weight's name, or that of a module that holds it."""
    return is_within(site.names, pattern)


def is_within(names: Iterable[str], pattern: str) -> bool:
    """As `matches_within`, for the names of one weight."""
    return _matches(names, pattern, _prefixes)


def check_order(option: str, matched: Mapping[str, Sequence[str]]) -> None:
    """Raises for a pattern that never counts: the first that matches a weight does. `"*"` may be left with none.

    Args:
        matched: the weights that each pattern matches, in the order of the patterns.
    """
    taken: set[str] = set()
    for pattern, names in matched.items():
        if names and pattern != "*" and taken.issuperset(names):
            raise ValueError(
                f"{option} pattern {pattern!r} never counts: patterns before it match {abridged(names)}, and the first that "
                "matches counts; put it before them"
            )
        taken.update(names)


def _matches(names: Iterable[str], pattern: str, parts: Callable[[str], Iterable[str]]) -> bool:
    return any(part == pattern or fnmatchcase(part, pattern) for name in names for part in parts(name))


def _prefixes(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _is_within_kind(site: Site, kind: type) -> bool:
    return any(isinstance(part, kind) for part in site.modules)


def _passes(site: Site, test: Callable[[str, Tensor], Any]) -> bool:
    return bool(test(site.name, site.weight))
