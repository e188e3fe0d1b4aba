"""The time that runs may take: which of them still fit, by how long others of their kind took."""

import heapq
import math
import time
from collections.abc import Callable, Iterable, Sequence

LATEST = 3  # runs of a kind that an estimate looks at: a machine's load changes


class TimeBudget:
    def __init__(
        self, seconds: float | None, clock: Callable[[], float] = time.monotonic, began: float | None = None
    ) -> None:
        """Counts from `began` on, by the clock, or from now. Without a number of seconds everything fits."""
        self.seconds = math.inf if seconds is None else seconds
        self.clock = clock
        self.began = clock() if began is None else began
        self.expected: dict[str, float] = {}  # seconds of a run of each kind, before the first one is done
        self.measured: dict[str, list[float]] = {}  # and of those that are

    @property
    def spent(self) -> float:
        return self.clock() - self.began

    @property
    def left(self) -> float:
        return self.seconds - self.spent

    def measure(self, kind: str, seconds: float) -> None:
        self.measured.setdefault(kind, []).append(seconds)

    def knows(self, kind: str) -> bool:
        return kind in self.measured or kind in self.expected

    def estimate(self, kind: str) -> float:
        """Seconds of a run: the longest of the latest ones. 0 where nothing is known."""
        return max(self.measured.get(kind, [self.expected.get(kind, 0.0)])[-LATEST:])

    def fits(self, kind: str) -> bool:
        return self.estimate(kind) <= self.left

    def count_that_fit(self, under_way: Iterable[float], kinds: Sequence[str], places: int) -> int:
        """How many runs of these kinds, in this order, would end in time on so many places.

        `under_way` has the seconds that each run which is being done still takes; those that end in time count too.
        """
        busy = sorted(max(0.0, seconds) for seconds in under_way)
        count = sum(seconds <= self.left for seconds in busy)
        free = [*busy, *[0.0] * (places - len(busy))]
        heapq.heapify(free)
        for kind in kinds:
            end = free[0] + self.estimate(kind)
            if end <= self.left:
                heapq.heapreplace(free, end)
                count += 1
        return count
