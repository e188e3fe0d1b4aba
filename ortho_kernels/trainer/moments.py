"""Points in the work of a device: when it comes there, asked without waiting for it."""

import time

import torch


class Moment:
    """Now, in the order of the device's work: on a GPU an event, else the time of the host."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = time.perf_counter()
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))

    def passed(self) -> bool:
        """Whether the device has come so far."""
        return self._event is None or self._event.query()

    def wait(self) -> None:
        """Until the device has come so far."""
        if self._event is not None:
            self._event.synchronize()

    def seconds_since(self, earlier: "Moment") -> float:
        """Waits until the device has come so far."""
        if self._event is None or earlier._event is None:
            return self._seconds - earlier._seconds
        self.wait()
        return 1e-3 * earlier._event.elapsed_time(self._event)
