"""What is known of a device before anything runs on it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from .heuristics import INTERPRETER


class DeviceFacts(NamedTuple):
    architecture: str
    multiprocessors: int


@cache
def device_facts(device: torch.device) -> DeviceFacts:
    """A CPU is the device of triton's interpreter."""
    if device.type != "cuda":
        return DeviceFacts(INTERPRETER, 2)
    properties = torch.cuda.get_device_properties(device)
    return DeviceFacts(architecture_of(properties), properties.multi_processor_count)


def architecture_of(properties) -> str:
    """As triton's targets are called: sm_90, gfx942."""
    if torch.version.hip is not None:
        return properties.gcnArchName.partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"
