"""Products in float64 of matrices that are converted in blocks."""

import pytest
import torch

from ortho_kernels.distributed.sharded.double_product import double_product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 70_000), (70_000, 3), (300, 500), (500, 300)])
def test_it_is_the_product_of_a_float64_copy(shape, dtype):
    W = torch.randn(shape).to(dtype)
    for matrix in (W, W.T, torch.cat([W, W])[1 : 1 + len(W)], torch.cat([W, W], 1).T[1 : 1 + shape[1]]):
        x = torch.randn(matrix.shape[1], dtype=torch.float64)
        torch.testing.assert_close(double_product(matrix, x), matrix.double() @ x)
