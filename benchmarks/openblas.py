"""SO's products by numpy's OpenBLAS: `ssyrk` for the residual's triangle, `ssymm` for the gradient, and nothing else."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from torch import Tensor

_ROW_MAJOR, _NO_TRANS, _TRANS, _LOWER, _LEFT, _RIGHT = 101, 111, 112, 122, 141, 142


class OpenBLAS:
    """The library in numpy's wheel; `None` from `find` where numpy was built otherwise."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._syrk = self._library.scipy_cblas_ssyrk64_
        self._symm = self._library.scipy_cblas_ssymm64_
        core = self._library.scipy_openblas_get_corename64_
        core.restype = ctypes.c_char_p
        self.kernel = core().decode()  # the processor whose kernels it runs

    @classmethod
    def find(cls) -> OpenBLAS | None:
        folder = Path(numpy.__file__).parents[1] / "numpy.libs"
        found = sorted(folder.glob("libscipy_openblas64_*.so"))
        return cls(found[0]) if found else None

    def step(self, weights: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """gradients = 4 R W, from the lower triangles of R, on as many threads as torch."""
        self._library.scipy_openblas_set_num_threads64_(ctypes.c_int(torch.get_num_threads()))
        one, minus, zero, four = (ctypes.c_float(x) for x in (1.0, -1.0, 0.0, 4.0))
        for weight, gradient in zip(weights, gradients, strict=True):
            rows, cols = len(weight), weight[0].numel()
            wide = rows <= cols
            n, k = (rows, cols) if wide else (cols, rows)
            R = torch.eye(n)
            W, G, leading = ctypes.c_void_p(weight.data_ptr()), ctypes.c_void_p(gradient.data_ptr()), _size(cols)
            pointer = ctypes.c_void_p(R.data_ptr())
            self._syrk(_ROW_MAJOR, _LOWER, _NO_TRANS if wide else _TRANS, _size(n), _size(k), one, W, leading, minus,
                       pointer, _size(n))  # fmt: skip
            self._symm(_ROW_MAJOR, _LEFT if wide else _RIGHT, _LOWER, _size(rows), _size(cols), four, pointer, _size(n), W,
                       leading, zero, G, leading)  # fmt: skip


def _size(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)
