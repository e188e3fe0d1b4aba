"""The weights and the truth that the interpreted tests share: the shape matrix of the CPU kernels' tests."""

import importlib.util
from pathlib import Path

import torch

_path = Path(__file__).parents[2] / "native" / "test_cpu_kernels.py"
_spec = importlib.util.spec_from_file_location("cpu_kernels", _path)
cpu_kernels = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cpu_kernels)

NAMES = list(cpu_kernels.WEIGHTS)
SIDES = (0, 1)
STORAGES = (torch.float32, torch.bfloat16, torch.float16)
