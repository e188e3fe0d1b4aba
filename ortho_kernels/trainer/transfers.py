"""Copies between the host and the device that neither of them waits for."""

from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """A tensor's values on their way to the host; the tensor must not change any more."""

    def __init__(self, tensor: Tensor) -> None:
        on_gpu = tensor.is_cuda
        self._values = tensor.detach().to("cpu", non_blocking=on_gpu)  # torch pins the memory of such a copy
        self._event: torch.cuda.Event | None = None
        if on_gpu:
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(tensor.device))

    def arrived(self) -> bool:
        return self._event is None or self._event.query()

    def values(self) -> Any:
        """As `Tensor.tolist`; waits if the copy has not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


def to_device(array: Any, device: torch.device) -> Tensor:
    """A NumPy array as a tensor on the device, copied from pinned memory: other memory the driver may have to wait for."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
