"""Which weights of a model are penalized, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..batches import check_batch
from ..weight_checks import is_integer
from .adapters import FROZEN, no_adapter, reasons_against
from .cuts import Cutter
from .matching import Sites, check_order, matchers, matches_name
from .matrix_form import MatrixForm
from .named_parameters import check_named, holds_named_parameters, vectors
from .weight_sites import Site, find_sites, quantized_layers
from .words import abridged, described, shown

GROUPS = ("split", "whole")


class CoveredWeight(NamedTuple):
    """Where a weight is found, what its vectors are kept under, how it holds its matrices, and its names in all places."""

    site: Site
    key: str
    form: MatrixForm
    names: tuple[str, ...]


class Selection(NamedTuple):
    """What is covered, and what is not.

    Attributes:
        covered: the covered weights, in the order of the model.
        uncovered: the reason against every other weight of two or more dimensions.
        factors: of adapters, where these alone are asked for: those that are covered, and those that would be in training.
    """

    covered: list[CoveredWeight]
    uncovered: dict[str, str]
    factors: list[Site]


class Selector:
    """What a user asked for; `select` finds it in the model as it stands, as often as the model changes."""

    def __init__(
        self,
        encoder: nn.Module,
        include: Any,
        exclude: Any,
        extra: Any = None,
        batch_dims: Any = None,
        groups: str = "split",
        cutter: Cutter | None = None,
        lora: str | None = None,
    ) -> None:
        if lora not in (None, "factors"):
            raise ValueError(f"lora must be None or 'factors'; got {lora!r}; of their products there is LoraPenalty")
        if groups not in GROUPS:
            raise ValueError(f"groups must be one of {', '.join(map(repr, GROUPS))}; got {groups!r}")
        self._encoder = (encoder,)
        self._only_lora = lora is not None
        self._splits_groups = groups == "split"
        self._cutter = cutter
        self._batch_dims = _checked_batch_dims(batch_dims)
        self._takes_all = holds_named_parameters(encoder)
        if self._takes_all:
            if self._only_lora:
                raise ValueError("lora finds adapters in a module; of named parameters, give the factors alone")
            for option, given in (("include", include), ("exclude", exclude), ("extra", extra)):
                check_named(option, given)
        sites = Sites(find_sites(encoder))
        self._narrows = include is not None
        self._include = matchers("include", include, encoder, sites, within=True)
        self._exclude = matchers("exclude", exclude, encoder, sites, within=True)
        self._extra = matchers("extra", extra, encoder, sites, within=False)  # all in a module is seldom meant

    def select(self, *, again: bool = False) -> Selection:
        """The selection; `again` if the model has changed, when what is no longer there need not be excluded.

        Raises:
            ValueError: where what the user named is not there, `extra` names what can't be penalized, or nothing is left.
        """
        found = Sites(find_sites(self._encoder[0]))
        sites = found.all
        batches = self._batches(sites, again)
        default, uncovered = self._default(sites)
        names = [site.name for site in default.values()]
        added = self._added(found, batches, uncovered)

        chosen = dict(default)
        frozen = {site.identity for site in sites if uncovered.get(site.name) == FROZEN}
        if self._narrows:
            included: set[Hashable] = set()
            for matcher in self._include:
                hits = matcher.hits(found)
                identities = {site.identity for site in hits}
                if not identities & (default.keys() | added.keys()):
                    raise ValueError(_no_match("include", matcher.description, names, hits, uncovered))
                included |= identities
            for identity in default.keys() - included:
                uncovered[chosen.pop(identity).name] = "left out by `include`"
            frozen &= included
        chosen = {**added, **chosen}
        for matcher in self._exclude:
            hits = matcher.hits(found)
            if not hits and not again:
                raise ValueError(_no_match("exclude", matcher.description, names, [], {}))
            frozen -= {site.identity for site in hits}
            for identity in {site.identity for site in hits} & chosen.keys():
                uncovered[chosen.pop(identity).name] = "left out by `exclude`"
        if not chosen:
            raise ValueError(self._nothing_left(names, uncovered))
        kept = [site for site in sites if chosen.get(site.identity) is site]
        for site in sites:
            if site.identity in chosen:  # under whatever name it is covered
                uncovered.pop(site.name, None)
        names_of: dict[Hashable, tuple[str, ...]] = {}
        for site in (*kept, *sites):
            names_of[site.identity] = (*names_of.get(site.identity, ()), *site.names)
        factors = [site for site in sites if site.identity in frozen or chosen.get(site.identity) is site]
        return Selection(self._covered(kept, batches, names_of, again), uncovered, factors if self._only_lora else [])

    def _default(self, sites: list[Site]) -> tuple[dict[Hashable, Site], dict[str, str]]:
        """What is covered where nothing is asked for, and the reasons against the rest."""
        encoder = self._encoder[0]
        if self._takes_all:
            default: dict[Hashable, Site] = {}
            for site in sites:
                default.setdefault(site.identity, site)
            return default, vectors(encoder)
        embeddings = {id(tensor): site.name for site in sites if site.is_embedding for tensor in site.tensors}
        default = {}
        uncovered = dict.fromkeys(quantized_layers(encoder), "packed by quantization")
        no_factor = reasons_against(sites) if self._only_lora else {}
        for site in sites:
            tied = next((embeddings[id(tensor)] for tensor in site.tensors if id(tensor) in embeddings), None)
            if self._only_lora:
                reason = no_factor.get(site.name)
            elif site.is_layer:
                reason = None if tied is None else f"tied to the embedding {tied}"
            else:
                reason = site.reason()
            if reason is None:
                default.setdefault(site.identity, site)
            else:
                uncovered[site.name] = reason
        return default, uncovered

    def _added(
        self, found: Sites, batches: Mapping[Hashable, int], uncovered: Mapping[str, str]
    ) -> dict[Hashable, Site]:
        """What `extra` and `batch_dims` name."""
        added: dict[Hashable, Site] = {}
        for matcher in self._extra:
            hits = matcher.hits(found)
            if not hits:
                others = list(uncovered) or ["none, all of two or more dimensions are covered"]
                raise ValueError(_no_match("extra", matcher.description, others, [], {}))
            for site in hits:
                if site.weight.dim() > 2 and not (site.is_layer or self._takes_all or site.identity in batches):
                    raise ValueError(f"extra can't add {site.name}: {uncovered[site.name]}")
                added.setdefault(site.identity, site)
        for site in found.all:
            if site.identity in batches:
                added.setdefault(site.identity, site)
        return added

    def _batches(self, sites: list[Site], again: bool) -> dict[Hashable, int]:
        """The batch dimensions of the weights that a pattern gives any; the first pattern that matches counts.

        Raises:
            ValueError: for a pattern that matches nothing or never counts, or a weight that is no batch of matrices.
        """
        batches: dict[Hashable, int] = {}
        matched = {
            pattern: [site.name for site in sites if matches_name(site, pattern)] for pattern in self._batch_dims
        }
        for pattern, found in matched.items():
            if not found:
                names = abridged([site.name for site in sites])
                raise ValueError(f"batch_dims pattern {pattern!r} matches none of the weights: {names}")
        if not again:
            check_order("batch_dims", matched)
        for site in sites:
            pattern = next((pattern for pattern in self._batch_dims if matches_name(site, pattern)), "")
            dims = self._batch_dims.get(pattern, 0)
            if not dims:
                continue
            if site.is_convolution:
                raise ValueError(
                    f"batch_dims pattern {pattern!r} matches {site.name}, a convolution's weight, which is no batch of "
                    "matrices; its `groups` are"
                )
            check_batch(site.name, site.weight.shape, dims)
            batches.setdefault(site.identity, dims)
        return batches

    def _covered(
        self,
        kept: list[Site],
        batches: Mapping[Hashable, int],
        names_of: Mapping[Hashable, tuple[str, ...]],
        again: bool,
    ) -> list[CoveredWeight]:
        forms = {
            site.name: MatrixForm(
                batches.get(site.identity, int(site.batch is not None)),
                site.is_transposed,
                site.filter_groups if self._splits_groups else 1,
            )
            for site in kept
        }
        found = {} if self._cutter is None else self._cutter.cuts(kept, forms, again)
        for name, cuts in found.items():
            if forms[name].cuts == 1:
                forms[name] = forms[name]._replace(cuts=cuts)
        keys = Counter(site.key for site in kept)
        return [
            CoveredWeight(
                site, site.key if keys[site.key] == 1 else site.name, forms[site.name], names_of[site.identity]
            )
            for site in kept
        ]

    def _nothing_left(self, default: list[str], uncovered: dict[str, str]) -> str:
        if self._only_lora and not default:
            return no_adapter(uncovered)
        if self._takes_all:
            return f"no named parameter is left to penalize: {described(uncovered)}"
        held = Counter(type(module).__name__ for module in self._encoder[0].modules())
        words = "the encoder has no conv or linear weight to penalize"
        if default:
            words += f" (include and exclude leave none of: {abridged(default)})"
        elif uncovered:
            words += f" (its other weights: {described(uncovered)})"
        return words + f"; it holds {', '.join(f'{count} {kind}' for kind, count in held.items())}"


def _checked_batch_dims(given: Any) -> dict[str, int]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(pattern, str) for pattern in given):
        raise TypeError(f"batch_dims must be numbers of dimensions by patterns of names; got {shown(given)}")
    for pattern, dims in given.items():
        if not is_integer(dims) or dims < 0:
            raise ValueError(f"batch_dims has {dims!r} for {pattern!r}; expected an int, 0 or more")
    return {pattern: int(dims) for pattern, dims in given.items()}


def _no_match(option: str, description: str, names: list[str], hits: list[Site], uncovered: dict[str, str]) -> str:
    if others := {site.name: uncovered[site.name] for site in hits if site.name in uncovered}:
        narrows = "; include narrows what is covered, `extra` adds to it: give both to cover these alone"
        words = f"{option} {description} matches only weights that are not covered: {described(others)}"
        return words + (narrows if option == "include" else "")
    return f"{option} {description} matches none of the weights: {abridged(names)}"
