"""Collapse: a network that answers nearly the same, whatever the picture. Seen in results, or while a run lasts."""

from collections.abc import Mapping
from typing import Any

LEAST_SPREAD = 0.3  # of projections: 1 in all directions evenly, 0 all alike

# Key in results.json, below which value it shows a collapse, what it is. All methods for 60 or 150 steps of 64 digits:
# projections spread by 0.06 to 0.23 where the loss came to chance, by 0.36 to 1.0 elsewhere. They always spread behind
# a projector that ends in batch norm; there the features count, which spread by 0.1 or more before the first step.
SIGNS = (
    ("spread", LEAST_SPREAD, "the spread of its projections"),
    ("representation_spread", 0.05, "the spread of its features"),
    ("representation_effective_rank", 1.5, "the effective rank of its features"),
)

# What else to try against the collapse of one method.
OF_METHOD = {"dino": "method.batch_norm=true, a lower method.final_teacher_temperature, "}

# A slow start is no collapse. It takes this many low rows of figures without a break, ...
LOW_ROWS = 3
LOW_SHARE = 0.1  # ... over this share of the run's steps, ...
MOST_STEPS = 500  # ... or over this many steps, if they are fewer
# MAE begins with one answer to all pictures: each place's mean patch. In six runs of quick/mae its class tokens spread by
# less than 0.3 from step 20 to steps 160 to 190, by 0.12 at least, and by more than 0.5 from step 250 on, of 2000.
SLOW_STARTS = {"mae": 0.5}  # share of the run's steps, in the place of both


def collapse(results: Mapping[str, Any]) -> str | None:
    """The figure that shows a collapse, in words; None where none does."""
    for key, least, title in SIGNS:
        value = results.get(key)
        if value is not None and value < least:
            return f"{title} is {value:.2g}, below {least:g}"
    return None


def advice(method: str | None) -> str:
    """What to try with this method, in one sentence."""
    of_method = OF_METHOD.get(method or "", "")
    return f"Try {of_method}a lower optimizer.lr, a longer optimizer.warmup or a larger trainer.batch_size."


class CollapseAlarm:
    """Takes the spread of every row of figures, and is raised once."""

    def __init__(self, advice: str, slow_start: float | None = None) -> None:
        self.advice = advice
        self.slow_start = slow_start
        self.rows = 0  # low ones, without a break
        self.first = 0  # the step of the first of them
        self.raised = False

    def update(self, step: int, steps: int, spread: float) -> str | None:
        """The warning to print at `step` of `steps`, if any."""
        if not spread < LEAST_SPREAD:  # nor where it can't be measured, NaN
            self.rows = 0
            return None
        self.first = self.first if self.rows else step
        self.rows += 1
        patience = min(LOW_SHARE * steps, MOST_STEPS) if self.slow_start is None else self.slow_start * steps
        if self.raised or self.rows < LOW_ROWS or step - self.first < patience:
            return None
        self.raised = True
        return (
            f"Collapse: at step {step} the spread of the projections is {spread:.2g}, below {LEAST_SPREAD} since step "
            f"{self.first} (1: all directions evenly, 0: all alike). {self.advice}"
        )
