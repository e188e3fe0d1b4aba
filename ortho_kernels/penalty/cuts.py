"""What `split_qkv`, `split_gate_up` and `split_heads` ask for: into how many blocks of rows each covered weight is cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from ..weight_checks import is_count
from .computed_weights import unmoved
from .fused_gates import GATE_UP
from .fused_projections import QKV, Fusion, UnknownCut, fused_weights
from .heads import head_rows
from .matching import check_order, matches_name
from .matrix_form import MatrixForm
from .weight_sites import Site
from .words import abridged, shown

Cuts = Mapping[str, int | str]  # by the name of the weight: equal blocks of rows, or why it is not cut so
_NEEDED = {
    "split_qkv": "a fused query, key and value projection (qkv.weight, in_proj_weight)",
    "split_gate_up": "a fused gate and up projection (gate_up_proj)",
    "split_heads": "a projection to q, k or v of a known attention",
}


class Cutter:
    """The cuts that a user asked for; `cuts` finds them in the model as it stands."""

    def __init__(self, encoder: nn.Module, split_qkv: Any, split_gate_up: Any, split_heads: Any) -> None:
        self._encoder = (encoder,)
        self._fusions: list[tuple[Fusion, tuple[str, ...]]] = []
        for fusion, given in ((QKV, split_qkv), (GATE_UP, split_gate_up)):
            patterns = _patterns(fusion.option, given)
            if given:
                self._fusions.append((fusion, patterns))
        self._by_head = split_heads is True
        self._heads = {} if isinstance(split_heads, bool) else _checked_heads(split_heads)

    def cuts(self, kept: list[Site], forms: Mapping[str, MatrixForm], again: bool) -> dict[str, int]:
        """The number of blocks in each covered weight that is cut. A cut by heads is one of q, k and v too.

        Args:
            forms: those of the weights, of which none is cut yet.
            again: whether the model has changed, when what was to be cut need not be there any more.

        Raises:
            ValueError: naming a weight that can't be cut, or a pattern that matches nothing.
        """
        with unmoved(self._encoder[0]):
            found = {fusion.option: self._fused(kept, forms, fusion, patterns) for fusion, patterns in self._fusions}
            if self._by_head or self._heads:
                by_heads = {**self._known_heads(kept, forms), **self._declared_heads(kept, forms, found, again)}
                found = {option: {n: c for n, c in cuts.items() if n not in by_heads} for option, cuts in found.items()}
                found["split_heads"] = by_heads
        for option, cuts in found.items():
            if not cuts and not again and not (found.get("split_heads") and option == "split_qkv"):
                names = abridged([site.name for site in kept])
                raise ValueError(f"{option} needs {_NEEDED[option]} among the weights: {names}")
            for name, cut in cuts.items():
                if isinstance(cut, str):
                    unknown = option == "split_heads" and isinstance(cut, UnknownCut)
                    heads = ", and its heads by split_heads={pattern: number of heads}" if unknown else ""
                    raise ValueError(f"{option} can't cut {name}: it {cut}{heads}")
        return {name: cut for cuts in found.values() for name, cut in cuts.items() if isinstance(cut, int)}

    def _fused(
        self, kept: list[Site], forms: Mapping[str, MatrixForm], fusion: Fusion, patterns: tuple[str, ...]
    ) -> dict[str, int | str]:
        """The fused weights: those known, and those that patterns declare."""
        fused = {name: cut for name, cut in fused_weights(self._encoder[0], fusion).items() if name in forms}
        for pattern in patterns:
            for site in _hits(fusion.option, pattern, kept):
                if isinstance(fused.get(site.name, UnknownCut()), UnknownCut):
                    what = f"{fusion.parts} of one size"
                    _check_blocks(fusion.option, pattern, site, forms[site.name], fusion.cut, what)
                    fused[site.name] = fusion.cut
        return fused

    def _known_heads(self, kept: list[Site], forms: Mapping[str, MatrixForm]) -> dict[str, int | str]:
        if not self._by_head:
            return {}
        known = head_rows(self._encoder[0])
        outputs = {site.name: forms[site.name].rows(site.weight) for site in kept if site.name in known}
        return {name: _blocks(known[name], rows) for name, rows in outputs.items()}

    def _declared_heads(
        self, kept: list[Site], forms: Mapping[str, MatrixForm], found: Mapping[str, Cuts], again: bool
    ) -> dict[str, int | str]:
        """So many heads in each of q, k and v where they are fused in equal parts, as is known or declared."""
        fused = {**fused_weights(self._encoder[0], QKV), **found.get("split_qkv", {})}
        blocks: dict[str, int | str] = {}
        matched = {pattern: _hits("split_heads", pattern, kept) for pattern in self._heads}
        if not again:
            check_order("split_heads", {pattern: [site.name for site in hits] for pattern, hits in matched.items()})
        for pattern, heads in self._heads.items():
            for site in matched[pattern]:
                cut = fused.get(site.name, 1)
                if site.name in blocks:
                    continue
                if isinstance(cut, int):
                    _check_blocks("split_heads", pattern, site, forms[site.name], heads * cut, f"{heads * cut} heads")
                    cut = heads * cut
                blocks[site.name] = cut
        return blocks


def _blocks(rows: int | str, outputs: int) -> int | str:
    if isinstance(rows, str):
        return rows
    return f"has {outputs} rows, which heads of {rows} don't divide" if outputs % rows else outputs // rows


def _hits(option: str, pattern: str, kept: list[Site]) -> list[Site]:
    hits = [site for site in kept if matches_name(site, pattern)]
    if not hits:
        names = abridged([site.name for site in kept])
        raise ValueError(f"{option} pattern {pattern!r} matches none of the weights: {names}")
    return hits


def _check_blocks(option: str, pattern: str, site: Site, form: MatrixForm, blocks: int, what: str) -> None:
    outputs, problem = form.rows(site.weight), None
    if outputs % blocks:
        problem = f"whose output of {outputs} is no multiple of {blocks}: it can't be {what}"
    elif form.cuts > 1:
        problem = f"a convolution of {form.cuts} groups, which are its matrices: give groups='whole' too"
    if problem is not None:
        raise ValueError(f"{option} pattern {pattern!r} matches {site.name}, {problem}")


def _patterns(option: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, bool):
        return ()
    patterns = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{option} must be True, False or patterns of names; got {shown(given)}")
    return patterns


def _checked_heads(given: Any) -> dict[str, int]:
    if not isinstance(given, Mapping) or not given or not all(isinstance(pattern, str) for pattern in given):
        raise TypeError(f"split_heads must be True, False or numbers of heads by patterns of names; got {shown(given)}")
    for pattern, heads in given.items():
        if not is_count(heads):
            raise ValueError(f"split_heads has {heads!r} for {pattern!r}; expected a positive int, the number of heads")
    return {pattern: int(heads) for pattern, heads in given.items()}
