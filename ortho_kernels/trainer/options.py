"""An option of the trainer: its default, one line of meaning and the values that it takes, beside the code that it sets.

    @dataclass
    class Settings(MethodSettings):
        name: str = "mine"
        temperature: float = option(0.2, "divides the scores", more_than(0))

A subclass may write `temperature: float = 0.1` to change the default alone.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

OPTION = "option"  # the key in a dataclass field's metadata


@dataclass(frozen=True)
class Range:
    """Finite numbers from `least` to `most`, both included unless `open`, which leaves `least` out, or `below`, which
    leaves `most` out."""

    least: float
    most: float = math.inf
    open: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        from_below = self.least < value if self.open else self.least <= value
        from_above = value < self.most if self.below else value <= self.most
        return from_below and from_above and math.isfinite(value)

    def __str__(self) -> str:
        least = f"{'more than' if self.open else 'at least'} {self.least:g}"
        if self.most == math.inf:
            return least
        if self.open or self.below:
            return f"{least} and {'less than' if self.below else 'at most'} {self.most:g}"
        return f"between {self.least:g} and {self.most:g}"


class OneOf(tuple[str, ...]):
    """These texts alone."""

    def __str__(self) -> str:
        return f"one of {', '.join(self)}" if len(self) > 1 else self[0]


Values = Range | OneOf  # written out, they follow "must be" in an error


@dataclass(frozen=True)
class Option:
    meaning: str
    values: Values | None


def at_least(least: float, below: float = math.inf) -> Range:
    return Range(least, below, below=True)


def more_than(least: float, at_most: float = math.inf) -> Range:
    return Range(least, at_most, open=True)


def inside(least: float, most: float) -> Range:
    return Range(least, most, open=True, below=True)


def between(least: float, most: float) -> Range:
    return Range(least, most)


def one_of(*names: str) -> OneOf:
    return OneOf(names)


def option(default: Any, meaning: str, values: Values | None = None) -> Any:
    """The dataclass field of an option; every number of a list has to be in `values`."""
    metadata = {OPTION: Option(meaning, values)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def option_of(settings: Any, name: str) -> Option:
    """What the dataclass `settings`, or the nearest of its bases that does, declares of the field."""
    fields = (getattr(base, "__dataclass_fields__", {}).get(name) for base in settings.__mro__)
    declared = (each.metadata[OPTION] for each in fields if each is not None and OPTION in each.metadata)
    return next(declared, Option("", None))
