"""Tensors whose storage was freed or shrunk under them, as FSDP1 does between uses, are refused in words, not read."""

import pytest
import torch

from ortho_kernels import soft_orthogonality, soft_orthogonality_value_and_grad, srip, srip_value_and_grad
from ortho_kernels.weight_checks import check_storage

OPERATORS = torch.ops.ortho_kernels
PENALTIES = [soft_orthogonality, srip]
FUSED = [soft_orthogonality_value_and_grad, srip_value_and_grad]
CURE = r"summon_full_params.*fully_shard"


def left_with(tensor, size):
    """The tensor, of whose storage so many bytes are left."""
    tensor.untyped_storage().resize_(size)
    return tensor


def refused(name, needed, size=0):
    held = f"a storage of {size} bytes" if size else "no storage"
    return pytest.raises(RuntimeError, match=rf"{name} has {held}.* need {needed} bytes.*{CURE}")


@pytest.mark.parametrize("penalty", PENALTIES + FUSED)
@pytest.mark.parametrize("size", [0, 92])
def test_weights(backend, penalty, size):
    with refused(r"weights\[1\]", 96, size):
        penalty([torch.randn(4, 6), left_with(torch.randn(4, 6), size)])


@pytest.mark.parametrize("penalty", PENALTIES + FUSED)
@pytest.mark.parametrize(
    ("view", "needed"),
    [
        (lambda: torch.randn(6, 4).T, 96),
        (lambda: torch.randn(20, 6)[4::4], 4 * (24 + 3 * 24 + 6)),
        (lambda: torch.randn(4, 6, 2, 2).to(memory_format=torch.channels_last), 384),
        (lambda: torch.randn(4, 6, 3, 3)[:, ::2], 4 * (3 * 54 + 4 * 9 + 9)),  # copied first: no single stride
        (lambda: torch.randn(4, 6, dtype=torch.bfloat16)[1:], 48),
    ],
)
def test_views(backend, penalty, view, needed):
    """A byte less than the last number that the strides reach is refused, and just enough is read."""
    weight = view()
    left_with(weight, needed)
    assert penalty([weight]) is not None
    with refused(r"weights\[0\]", needed, needed - 1):
        penalty([left_with(weight, needed - 1)])


@pytest.mark.parametrize("penalty", PENALTIES)
def test_under_transforms(backend, penalty):
    with refused(r"weights\[0\]", 96):
        torch.func.grad(lambda w: penalty([w]))(left_with(torch.randn(4, 6), 0))


@pytest.mark.parametrize("penalty", PENALTIES)
def test_weights_freed_before_the_backward(kernels, penalty):
    weight = torch.randn(4, 6, requires_grad=True)
    value = penalty([weight])
    left_with(weight, 0)
    with refused(r"weights\[0\]", 96):
        value.backward()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_weights_without_numbers_need_none(backend, penalty):
    assert penalty([left_with(torch.randn(0, 6), 0)]) == 0


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("strides", ["its weight's", "others"])
def test_gradients(backend, fused, strides):
    gradient = torch.zeros(4, 6) if strides == "its weight's" else torch.zeros(6, 4).T
    with refused(r"the gradient of weights\[1\]", 96, 16):
        fused([torch.randn(4, 6), torch.randn(4, 6)], accumulate_into=[None, left_with(gradient, 16)])


def test_start(backend):
    for penalty in (srip, srip_value_and_grad):
        with refused(r"start\[1\]", 16):
            penalty([torch.randn(4, 6)] * 2, start=[torch.randn(1, 4), left_with(torch.randn(1, 4), 0)])


@pytest.mark.parametrize("name", ["factors", "residuals"])
def test_operands_of_soft_orthogonality_backward(kernels, name):
    given = {"factors": torch.randn(1), "residuals": torch.randn(10)}
    left_with(given[name], 2)
    with refused(name, given[name].nbytes, 2):
        OPERATORS.soft_orthogonality_backward(
            given["factors"], [torch.randn(4, 6)], [1], [0], given["residuals"], 0, [torch.empty(4, 6)], [1], False
        )


@pytest.mark.parametrize("name", ["factors", "vectors"])
def test_operands_of_srip_backward(kernels, name):
    given = {"factors": torch.randn(1), "vectors": torch.randn(16)}
    left_with(given[name], 2)
    with refused(name, given[name].nbytes, 2):
        OPERATORS.srip_backward(
            given["factors"], [torch.randn(4, 6)], [1], [0], given["vectors"], 2, [torch.empty(4, 6)], [1], False
        )


def test_start_of_the_operators(kernels):
    weights, start = [torch.randn(4, 6)], left_with(torch.randn(4), 0)
    with refused("start", 16):
        OPERATORS.srip(weights, [1], [0], start, 2, True, True)


@pytest.mark.parametrize("accumulate", [True, False])
def test_gradients_of_the_operators(kernels, accumulate):
    weights, gradients = [torch.randn(4, 6)] * 2, [left_with(torch.randn(4, 6), 0)]
    with refused(r"the gradient of weights\[1\]", 96):
        OPERATORS.soft_orthogonality_backward(
            torch.randn(2), weights, [1, 1], [0, 0], torch.randn(20), 0, gradients, [0, 1], accumulate
        )


def test_the_check_in_python_names_the_weight():
    weights = [torch.randn(4, 6), left_with(torch.randn(4, 6), 0)]
    with refused("encoder.fc.weight", 96):
        check_storage(weights, ["encoder.conv.weight", "encoder.fc.weight"])
    with refused(r"weights\[1\]", 96):
        check_storage(weights)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_what_is_traced_passes(backend, penalty):
    """Fake tensors have no numbers, and need none."""
    from torch._subclasses import FakeTensorMode

    weight = torch.randn(4, 6)
    with FakeTensorMode() as mode:
        assert penalty([mode.from_tensor(weight)]).shape == ()
    compiled = torch.compile(lambda w: penalty([w], reduction="none"), fullgraph=True, backend="aot_eager")
    assert compiled(weight).shape == (1,)
