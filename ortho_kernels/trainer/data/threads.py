"""Work on every picture of a set, in threads: PIL reads and decodes outside Python's lock."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .notices import say

Result = TypeVar("Result")
BLOCK = 1000  # pictures; an error stops the work at the end of its block
FIRST_SECONDS, LINE_SECONDS = 3.0, 15.0


def in_threads(title: str, work: Callable[[int], Result], count: int) -> Iterator[Result]:
    """`work(0)` to `work(count - 1)`, the results in order. Work that takes long says how far it is."""
    due = time.monotonic() + FIRST_SECONDS
    with ThreadPoolExecutor() as pool:
        for start in range(0, count, BLOCK):
            end = min(start + BLOCK, count)
            yield from pool.map(work, range(start, end))
            if time.monotonic() >= due and end < count:
                say(f"{title}: {end:,} of {count:,} pictures ...")
                due = time.monotonic() + LINE_SECONDS
