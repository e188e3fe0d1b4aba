"""How much each matrix counts: gamma of its weight, times its share in the reduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph_reads import read_by_graphs
from ..ops import copy_now
from ..weight_checks import is_number
from ..weight_views import WeightViews
from .matching import check_order, is_within
from .schedules import Schedule
from .words import abridged, shown


class Strength:
    """The factor of every matrix: one number for all where they are equal, else a tensor of one a matrix.

    Args:
        gamma: a number, a tensor without dimensions, a schedule, or a dict of these by patterns of names.
        reduction: a matrix counts gamma times 1 (`"sum"`), times 1 over the number of matrices (`"mean"`), or times 1 over
            the number of entries of its Gram (`"entries"`); `check_reduction` says which a penalty has.

    Attributes:
        views: those of the weights for which it was worked out.

    Raises:
        TypeError, ValueError: for a gamma that is none of these.
    """

    def __init__(self, gamma: Any, reduction: str) -> None:
        self.gamma, self.reduction = dict(gamma) if isinstance(gamma, Mapping) else gamma, reduction
        self.views: WeightViews | None = None
        self._patterns: tuple[str, ...] = ()
        self._gammas: list[Any] = [gamma]
        self._of_weights: list[int] = []  # which of the gammas is each weight's
        if isinstance(gamma, Mapping):
            if not gamma:
                raise ValueError('gamma is an empty dict; expected patterns of names, as {"layer4.*": 1e-5, "*": 1e-6}')
            for pattern in gamma:
                if not isinstance(pattern, str):
                    raise TypeError(f"gamma takes patterns of names; got {shown(pattern)}")
            self._patterns, self._gammas = tuple(gamma), list(gamma.values())
        for name, given in zip(self._labels(), self._gammas, strict=True):
            _check(name, given)

    @property
    def is_scheduled(self) -> bool:
        return any(isinstance(gamma, Schedule) for gamma in self._gammas)

    def assign(self, names: Sequence[Sequence[str]], *, again: bool = False) -> None:
        """Finds the gamma of each weight, whose names these are; `again` if the model has changed.

        Raises:
            ValueError: for a pattern that matches no weight, or none for which it counts, unless `again`; for a weight that
                no pattern matches.
        """
        self.views = None
        if not self._patterns:
            self._of_weights = [0] * len(names)
            return
        hits = [[is_within(own, pattern) for pattern in self._patterns] for own in names]
        if not again:
            matched = {
                pattern: [own[0] for own, hit in zip(names, column, strict=True) if hit]
                for pattern, *column in zip(self._patterns, *hits, strict=True)
            }
            for pattern, found in matched.items():
                if not found:
                    raise ValueError(f"gamma pattern {pattern!r} matches none of the weights: {_listed(names)}")
            check_order("gamma", matched)
        left = [own for own, matched in zip(names, hits, strict=True) if not any(matched)]
        if left:
            raise ValueError(f'no gamma pattern matches {_listed(left)}; "*" as the last pattern is for all others')
        self._of_weights = [matched.index(True) for matched in hits]

    def fit(self, views: WeightViews, side: str) -> None:
        """Works out what changes with the weights alone.

        Raises:
            TypeError, ValueError: for a tensor on another device than the weights, also of a schedule, or a schedule that
                gives no tensor without dimensions.
        """
        for name, gamma in zip(self._labels(), self._gammas, strict=True):
            if isinstance(gamma, Schedule):
                name, gamma = _first_of_schedule(name, gamma, torch.zeros((), dtype=views.dtype, device=views.device))
            if isinstance(gamma, Tensor) and gamma.device != views.device:
                raise ValueError(f"{name} is on {gamma.device}, but the weights are on {views.device}: make it there")
        fixed = [None if isinstance(gamma, (Tensor, Schedule)) else float(gamma) for gamma in self._gammas]
        of_matrices = [index for index, count in zip(self._of_weights, views.groups, strict=True) for _ in range(count)]
        moving = sorted({index for index in of_matrices if fixed[index] is None})
        shares = self._shares(views, side)
        bases = [
            share * (1.0 if (number := fixed[index]) is None else number)
            for index, share in zip(of_matrices, shares, strict=True)
        ]
        self._moving = [self._gammas[index] for index in moving]
        self._one_for_all = len(set(of_matrices)) == 1
        with torch.inference_mode(False):  # lest what is made here could not be trained with
            self._one = torch.ones((), dtype=views.dtype, device=views.device)
            self._bases = self._one.new_tensor(bases)
            self._base: float | Tensor = bases[0] if len(set(bases)) == 1 else self._bases
            places = [1 + moving.index(index) if index in moving else 0 for index in of_matrices]
            self._places = torch.tensor(places, device=views.device)
        self._dtype, self.views = views.dtype, views

    def factor(self, step: Tensor | None) -> float | Tensor:
        """A number or a tensor without dimensions for all matrices, or one a matrix. Nothing waits for the device."""
        if isinstance(self._base, Tensor):
            read_by_graphs(self._base)
        if not self._moving:
            return self._base
        gammas = [self._at(gamma, step) for gamma in self._moving]
        if self._one_for_all:
            return self._base * gammas[0]
        one, places = read_by_graphs(self._one), read_by_graphs(self._places)
        return self._base * torch.stack([one, *gammas]).index_select(0, places)

    def spread(self, factor: float | Tensor) -> float | Tensor:
        """The factor; as a tensor of one a matrix where it is the usual number, of which one was made."""
        return read_by_graphs(self._bases) if type(factor) is float and factor == self._base else factor

    def of_weights(self, step: Tensor | None) -> list[float]:
        """The gamma of each weight, for people: this waits for the device."""
        now = [float(self._at(gamma, step)) for gamma in self._gammas]
        return [now[index] for index in self._of_weights]

    def _at(self, gamma: Any, step: Tensor | None) -> Any:
        if isinstance(gamma, Schedule):
            assert step is not None
            return gamma.at(copy_now(step).to(self._dtype)).to(self._dtype)
        return copy_now(gamma).to(self._dtype) if isinstance(gamma, Tensor) else gamma

    def _shares(self, views: WeightViews, side: str) -> list[float]:
        if self.reduction == "entries":
            return views.entry_shares(side)
        return [1 / views.matrix_count if self.reduction == "mean" else 1.0] * views.matrix_count

    def _labels(self) -> list[str]:
        return [f"gamma of {pattern!r}" for pattern in self._patterns] or ["gamma"]


def weighted_sum(values: Tensor, factor: float | Tensor) -> Tensor:
    """The sum of `factor` times the value of every matrix."""
    if isinstance(factor, Tensor) and factor.dim():
        return (factor * values).sum()
    return factor * values.sum()


def _check(name: str, gamma: Any) -> None:
    """Raises where this is no gamma of a weight. A tensor's number is not looked at: that would wait for its device."""
    if isinstance(gamma, Schedule):
        return
    if isinstance(gamma, Tensor):
        problem = None
        if isinstance(gamma, nn.Parameter) or gamma.requires_grad:
            problem = "requires a gradient, which the penalty doesn't give it: detach it"
        elif gamma.dim():
            problem = f"has shape {tuple(gamma.shape)}; expected a tensor without dimensions"
        elif not gamma.is_floating_point():
            problem = f"has dtype {gamma.dtype}; expected a floating-point tensor"
        if problem is not None:
            raise ValueError(f"{name} {problem}")
    elif not is_number(gamma):
        raise ValueError(
            f"{name} must be a finite number; got {shown(gamma)}. It may be a tensor without dimensions or a schedule too, "
            "and gamma a dict of these by patterns of names"
        )


def _first_of_schedule(name: str, schedule: Schedule, step: Tensor) -> tuple[str, Tensor]:
    """What a schedule gives at step 0, and its name. A schedule of one's own may give anything."""
    name, first = f"{name}: what {type(schedule).__name__}.at returns", schedule.at(step)
    if not isinstance(first, Tensor):
        raise TypeError(f"{name} must be a tensor, made of the step by tensor operations; got {shown(first)}")
    _check(name, first)
    return name, first


def _listed(names: Sequence[Sequence[str]]) -> str:
    return abridged([own[0] for own in names])
