"""A request to stop (SIGTERM, Ctrl-C) that waits until what is under way can be saved."""

import signal
import threading
from typing import Any


class StopRequest:
    """Takes these signals from `take_over` to `give_back`, or within a `with` block."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the last signal that came
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self.take_over()
        return self

    def __exit__(self, *_: Any) -> None:
        self.give_back()

    def __bool__(self) -> bool:
        return self.number is not None

    @property
    def name(self) -> str:
        return signal.Signals(self.number or signal.SIGTERM).name

    def take_over(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python lets only the main thread handle signals
        for number in (signal.SIGTERM, signal.SIGINT):
            self._earlier[number] = signal.signal(number, self._note)

    def give_back(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def _note(self, number: int, _: Any) -> None:
        if number == self.number == signal.SIGINT:  # the second Ctrl-C doesn't wait for the step to end
            raise KeyboardInterrupt
        self.number = number
