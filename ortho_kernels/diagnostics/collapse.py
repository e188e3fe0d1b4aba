"""Collapse: a network that answers nearly the same, whatever the picture."""

from collections.abc import Mapping
from typing import Any

LEAST_SPREAD = 0.3  # of projections: 1 in all directions evenly, 0 all alike

# Key in results.json, below which value it shows a collapse, what it is. Runs that learn stay well above; an encoder
# before its first step too. Where a projector ends in batch norm its projections spread always: the features count.
SIGNS = (
    ("spread", LEAST_SPREAD, "the spread of its projections"),
    ("representation_spread", 0.05, "the spread of its features"),
    ("representation_effective_rank", 1.5, "the effective rank of its features"),
)

# What else helps against the collapse of one method, as options.
OF_METHOD = {"dino": "method.batch_norm=true, a lower method.final_teacher_temperature, "}


def collapse(results: Mapping[str, Any]) -> str | None:
    """The figure that shows a collapse, in words; None where none does."""
    for key, least, title in SIGNS:
        value = results.get(key)
        if value is not None and value < least:
            return f"{title} is {value:.2g}, below {least:g}"
    return None


def advice(settings: Mapping[str, Any]) -> str:
    """What to try in a run of these settings (flat, with dotted keys)."""
    penalty = "" if settings.get("penalty.gamma") else ", penalty=so"
    return (
        f"Try {OF_METHOD.get(str(settings.get('method.name')), '')}a lower optimizer.lr, a longer optimizer.warmup, "
        f"a larger trainer.batch_size{penalty}."
    )
