"""How far long work has come: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LINE_SECONDS = 15.0


def with_progress(items: Iterable[T], total: int, label: str | None) -> Iterator[T]:
    """The items, of which there are `total`; a bar or lines under the label say how many are done. None: nothing does."""
    if label is None:
        yield from items
    elif sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False)
    else:
        last = time.monotonic()
        for done, item in enumerate(items):
            if time.monotonic() - last > LINE_SECONDS:
                last = time.monotonic()
                print(f"{label}: {done}/{total}", flush=True)
            yield item
