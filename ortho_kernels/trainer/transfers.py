"""Copies between the host and the device that neither of them waits for."""

from typing import Any

import torch
from torch import Tensor

from .moments import Moment


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
