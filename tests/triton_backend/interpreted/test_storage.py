"""Every tensor of which a kernel would get the address is refused where its storage was freed."""

import pytest
import torch

from ortho_kernels.backends.triton import operators as kernels


def freed(*shape):
    tensor = torch.randn(shape)
    tensor.untyped_storage().resize_(0)
    return tensor


def operators(weight, factors, gradient, residuals, start, vectors):
    """The calls of all operators, for one weight of order 4."""
    views, into = ([weight], [1], [0]), ([gradient], [1], False)
    return [
        lambda: kernels.soft_orthogonality(*views, 1.0, 1.0, True),
        lambda: kernels.soft_orthogonality_backward(factors, *views, residuals, 0, *into),
        lambda: kernels.srip(*views, start, 2, True, True),
        lambda: kernels.srip_backward(factors, *views, vectors, 2, *into),
    ]


SHAPES = {"weight": (4, 6), "factors": (1,), "gradient": (4, 6), "residuals": (10,), "start": (4,), "vectors": (16,)}
READERS = {
    "weight": [0, 1, 2, 3],
    "factors": [1, 3],
    "gradient": [1, 3],
    "residuals": [1],
    "start": [2],
    "vectors": [3],
}


@pytest.mark.parametrize(("name", "reader"), [(name, reader) for name in READERS for reader in READERS[name]])
def test_storage_that_was_freed(name, reader):
    given = {key: (freed if key == name else torch.randn)(*shape) for key, shape in SHAPES.items()}
    said = {"weight": r"weights\[0\]", "gradient": r"the gradient of weights\[0\]"}.get(name, name)
    with pytest.raises(RuntimeError, match=rf"{said} has no storage.* need {given[name].nbytes} bytes"):
        operators(**given)[reader]()


def test_storage_freed_after_a_plan_was_kept():
    weight = torch.randn(4, 6)
    kernels.soft_orthogonality([weight], [1], [0], 1.0, 1.0, False)
    weight.untyped_storage().resize_(90)
    with pytest.raises(RuntimeError, match=r"weights\[0\] has a storage of 90 bytes.* need 96 bytes"):
        kernels.soft_orthogonality([weight], [1], [0], 1.0, 1.0, False)
