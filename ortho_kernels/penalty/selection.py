"""Which weights of a model are penalized, and why the others are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from torch import nn

from .adapters import no_adapter, reasons_against
from .computed_weights import unmoved
from .fused_projections import UnknownCut, fused_projections
from .matching import Sites, matchers, matches_name
from .weight_sites import Site, find_sites, quantized_layers

GROUPS = ("split", "whole")


class CoveredWeight(NamedTuple):
    """Where a weight is found, what its vectors are kept under, and the number of matrices in it, one above the other."""

    site: Site
    key: str
    groups: int


class Selection(NamedTuple):
    """The covered weights in the order of the model, and the reason against every other of two or more dimensions."""

    covered: list[CoveredWeight]
    uncovered: dict[str, str]


class Selector:
    """What a user asked for; `select` finds it in the model as it stands, as often as the model changes."""

    def __init__(
        self,
        encoder: nn.Module,
        include: Any,
        exclude: Any,
        extra: Any,
        split_qkv: Any,
        groups: str,
        lora: str | None = None,
    ) -> None:
        if lora not in (None, "factors"):
            raise ValueError(f"lora must be None or 'factors'; got {lora!r}; of their products there is LoraPenalty")
        if groups not in GROUPS:
            raise ValueError(f"groups must be one of {', '.join(map(repr, GROUPS))}; got {groups!r}")
        self._encoder = (encoder,)
        self._only_lora = lora is not None
        self._splits_groups = groups == "split"
        self._splits_qkv = bool(split_qkv)
        sites = Sites(find_sites(encoder))
        self._narrows = include is not None
        self._include = matchers("include", include, encoder, sites, within=True)
        self._exclude = matchers("exclude", exclude, encoder, sites, within=True)
        self._extra = matchers("extra", extra, encoder, sites, within=False)  # all in a module is seldom meant
        self._declared = () if isinstance(split_qkv, bool) else _patterns(split_qkv)

    def select(self, *, again: bool = False) -> Selection:
        """The selection; `again` if the model has changed, when what is no longer there need not be excluded.

        Raises:
            ValueError: where what the user named is not there, `extra` names what can't be penalized, or nothing is left.
        """
        found = Sites(find_sites(self._encoder[0]))
        sites = found.all
        embeddings = {id(tensor): site.name for site in sites if site.is_embedding for tensor in site.tensors}
        default: dict[Hashable, Site] = {}
        uncovered = dict.fromkeys(quantized_layers(self._encoder[0]), "packed by quantization")
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
        names = [site.name for site in default.values()]

        chosen = dict(default)
        if self._narrows:
            included = set()
            for matcher in self._include:
                hits = matcher.hits(found)
                identities = {site.identity for site in hits} & default.keys()
                if not identities:
                    raise ValueError(_no_match("include", matcher.description, names, hits, uncovered))
                included |= identities
            for identity in default.keys() - included:
                uncovered[chosen.pop(identity).name] = "left out by `include`"
        for matcher in self._extra:
            hits = matcher.hits(found)
            if not hits:
                raise ValueError(_no_match("extra", matcher.description, list(uncovered), [], {}))
            for site in hits:
                if site.weight.dim() > 2 and not site.is_layer:
                    raise ValueError(f"extra can't add {site.name}: {uncovered[site.name]}")
                chosen.setdefault(site.identity, site)
        for matcher in self._exclude:
            hits = matcher.hits(found)
            if not hits and not again:
                raise ValueError(_no_match("exclude", matcher.description, names, [], {}))
            for identity in {site.identity for site in hits} & chosen.keys():
                uncovered[chosen.pop(identity).name] = "left out by `exclude`"
        if not chosen:
            raise ValueError(self._nothing_left(names, uncovered))
        kept = [site for site in sites if chosen.get(site.identity) is site]
        for site in sites:
            if site.identity in chosen:  # under whatever name it is covered
                uncovered.pop(site.name, None)
        return Selection(self._covered(kept, again), uncovered)

    def _covered(self, kept: list[Site], again: bool) -> list[CoveredWeight]:
        counts = self._fused(kept, again) if self._splits_qkv else {}
        if self._splits_groups:
            counts |= {site.name: site.filter_groups for site in kept if site.filter_groups > 1}
        keys = Counter(site.key for site in kept)
        return [
            CoveredWeight(site, site.key if keys[site.key] == 1 else site.name, counts.get(site.name, 1))
            for site in kept
        ]

    def _fused(self, kept: list[Site], again: bool) -> dict[str, int]:
        """The number of matrices in each fused projection among the covered weights."""
        names = [site.name for site in kept]
        with unmoved(self._encoder[0]):
            fused = {name: cut for name, cut in fused_projections(self._encoder[0]).items() if name in names}
        for pattern in self._declared:
            hits = [site for site in kept if matches_name(site, pattern)]
            if not hits:
                raise ValueError(f"split_qkv pattern {pattern!r} matches none of the weights: {abridged(names)}")
            for site in hits:
                if isinstance(fused.get(site.name, UnknownCut()), UnknownCut):
                    self._check_declared(site, pattern)
                    fused[site.name] = 3
        if not fused and not again:
            raise ValueError(
                "split_qkv needs a fused query, key and value projection (qkv.weight, in_proj_weight) among the "
                f"weights: {abridged(names)}"
            )
        for name, cut in fused.items():
            if isinstance(cut, str):
                raise ValueError(f"split_qkv can't cut {name}: it {cut}")
        return {name: cut for name, cut in fused.items() if isinstance(cut, int)}

    def _check_declared(self, site: Site, pattern: str) -> None:
        outputs = site.weight.shape[1 if site.is_transposed else 0]
        problem = None
        if outputs % 3:
            problem = f"whose output of {outputs} is no multiple of three: it can't be q, k and v of one size"
        elif self._splits_groups and site.filter_groups > 1:
            problem = f"a convolution of {site.filter_groups} groups, which are its matrices: give groups='whole' too"
        if problem is not None:
            raise ValueError(f"split_qkv pattern {pattern!r} matches {site.name}, {problem}")

    def _nothing_left(self, default: list[str], uncovered: dict[str, str]) -> str:
        if self._only_lora and not default:
            return no_adapter(uncovered)
        held = Counter(type(module).__name__ for module in self._encoder[0].modules())
        words = "the encoder has no conv or linear weight to penalize"
        if default:
            words += f" (include and exclude leave none of: {abridged(default)})"
        elif uncovered:
            words += f" (its other weights: {described(uncovered)})"
        return words + f"; it holds {', '.join(f'{count} {kind}' for kind, count in held.items())}"


def _patterns(given: Any) -> tuple[str, ...]:
    patterns = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"split_qkv must be True, False or patterns of names; got {given!r:.60}")
    return patterns


def abridged(names: Sequence[str], most: int = 6) -> str:
    """The first names and the last, for people."""
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join([*names[: most - 1], "...", names[-1]])


def described(uncovered: dict[str, str]) -> str:
    """The names and their reasons, those with one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in uncovered.items():
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{abridged(group, 3)}: {reason}" for reason, group in names.items())


def _no_match(option: str, description: str, names: list[str], hits: list[Site], uncovered: dict[str, str]) -> str:
    if others := {site.name: uncovered[site.name] for site in hits if site.name in uncovered}:
        return f"{option} {description} matches only weights that are not covered: {described(others)}"
    return f"{option} {description} matches none of the weights: {abridged(names)}"
