"""How long steps take on a GPU without the host's part, and the host's part apart.

The host's is that of one call after the other contestants' work, with cold caches: `benchmarks.host_time` has its parts.

Each step is queued behind a pause in which the host gets ahead, so that no kernel waits for its launch. A queue holds about
a thousand launches: a step with more is timed without the host in a CUDA graph only.
L2 is emptied by reading: what was written there would still have to be carried out to memory while the step runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from .contestants import Steps

LEAST_ROUNDS, MOST_ROUNDS = 5, 300
LONGEST_PAUSE = 0.05  # seconds


@dataclass
class Times:
    """Seconds a step: on the GPU, forward alone and with its backward; of the host, until it has handed both over."""

    forward: list[float] = field(default_factory=list)
    both: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)


class Stopwatch:
    """Times steps on the current GPU."""

    def __init__(self) -> None:
        l2_bytes = torch.cuda.get_device_properties().L2_cache_size
        self._other = torch.zeros(max(1, l2_bytes // 2), dtype=torch.float32, device="cuda")  # twice as large
        self._cycles_per_second = self._measure_clock()

    def device_seconds(self, step: Callable[[], object], host_seconds: float = 0.0) -> float:
        """On the GPU alone, of a step that takes the host about so long to launch."""
        self._other.amax()
        pause = min(1e-4 + 1.5 * host_seconds, LONGEST_PAUSE)
        torch.cuda._sleep(int(pause * self._cycles_per_second))
        return _between_events(step)

    def host_seconds(self, step: Callable[[], object]) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        taken = time.perf_counter() - began
        torch.cuda.synchronize()
        return taken

    def _measure_clock(self) -> float:
        cycles = 1_000_000
        torch.cuda._sleep(cycles)  # loads the kernel
        return cycles / _between_events(lambda: torch.cuda._sleep(cycles))


def _between_events(step: Callable[[], object]) -> float:
    """Seconds between two events, one recorded before the step and one after it."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    stop.record()
    stop.synchronize()
    return 1e-3 * start.elapsed_time(stop)


def interleave(
    contestants: dict[str, Steps], until: float, stopwatch: Stopwatch
) -> tuple[dict[str, Times], dict[str, str]]:
    """Rounds in each of which every contestant runs once, in rotating order, until `time.perf_counter()` says `until`.

    Returns the times of those that did not fail, and the errors of those that did.
    """
    times = {name: Times() for name in contestants}
    failed: dict[str, str] = {}
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and time.perf_counter() >= until:
            break
        names = [name for name in contestants if name not in failed]
        for name in names[number % max(1, len(names)) :] + names[: number % max(1, len(names))]:
            forward, both = contestants[name]
            try:
                host = stopwatch.host_seconds(both)
                measured = host, stopwatch.device_seconds(forward, host), stopwatch.device_seconds(both, host)
            except Exception as error:
                failed[name] = describe(error)
                continue
            for series, seconds in zip(
                (times[name].host, times[name].forward, times[name].both), measured, strict=True
            ):
                series.append(seconds)
    return {name: taken for name, taken in times.items() if name not in failed}, failed


def describe(error: BaseException) -> str:
    """In one line, for the entry of a contestant that failed."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
