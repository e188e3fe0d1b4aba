"""Points in the work of a device, and copies between it and the host, that nobody waits for."""

import time
from typing import Any

import torch
from torch import Tensor


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


class HostCopy:
    """A tensor's values on their way to the host; the tensor must not change any more."""

    def __init__(self, tensor: Tensor) -> None:
        # torch pins the memory of a copy from a GPU.
        self._values = tensor.detach().to("cpu", non_blocking=tensor.is_cuda)
        self._copied = Moment(tensor.device)

    def arrived(self) -> bool:
        return self._copied.passed()

    def values(self) -> Any:
        """As `Tensor.tolist`; waits if the copy has not arrived."""
        self._copied.wait()
        return self._values.tolist()


def to_device(array: Any, device: torch.device) -> Tensor:
    """A NumPy array as a tensor on the device, copied from pinned memory: other memory the driver may have to wait for."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
