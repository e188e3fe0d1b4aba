"""Which start SRIP's options of the class ask for."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import torch

from .start import GeneratorStart, SeededStart, Start
from .warm_start import WarmStart
from .words import shown


def choose_start(options: dict[str, Any]) -> Start:
    """What SRIP's options ask for; those that are the class's own are taken out."""
    side, generator = options.get("side", "small"), options.pop("generator", None)
    seed, warm_start = options.pop("seed", None), options.pop("warm_start", False)
    if type(warm_start) is not bool:
        raise TypeError(f"warm_start must be True or False; got {warm_start!r}")
    if seed is not None and (not isinstance(seed, Integral) or isinstance(seed, bool)):
        raise TypeError(f"seed must be an int; got {seed!r}")
    if generator is None:
        return (WarmStart if warm_start else SeededStart)(side, int(seed or 0))
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator; got {shown(generator)}")
    for name, given in (("warm_start", warm_start), ("seed", seed is not None)):
        if given:
            raise ValueError(f"{name} makes the start vectors, so a generator has nothing to draw: give one of the two")
    return GeneratorStart(side, generator)
