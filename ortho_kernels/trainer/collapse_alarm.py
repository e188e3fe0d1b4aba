"""Says during a run that it has collapsed, while there is time to stop it."""

from ortho_kernels.diagnostics.collapse import LEAST_SPREAD

# A slow start is no collapse. It takes this many low rows of figures without a break, ...
LOW_ROWS = 3
LOW_SHARE = 0.1  # ... over this share of the run's steps, ...
MOST_STEPS = 500  # ... or over this many steps, if they are fewer


class CollapseAlarm:
    """Takes the spread of every row of figures, and is raised once."""

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self.rows = 0  # low ones, without a break
        self.first = 0  # the step of the first of them
        self.raised = False

    def update(self, step: int, steps: int, spread: float) -> str | None:
        """What to say at `step` of `steps`, if anything."""
        if not spread < LEAST_SPREAD:  # nor where it can't be measured, NaN
            self.rows = 0
            return None
        self.first = self.first if self.rows else step
        self.rows += 1
        if self.raised or self.rows < LOW_ROWS or step - self.first < min(LOW_SHARE * steps, MOST_STEPS):
            return None
        self.raised = True
        return (
            f"Collapse: at step {step} the spread of the projections is {spread:.2g}, below {LEAST_SPREAD} since step "
            f"{self.first} (1: all directions evenly, 0: all alike). {self.advice}"
        )
