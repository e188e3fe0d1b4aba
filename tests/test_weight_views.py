"""Weights seen as matrices: Python and C++ give the same answer, and the way of a call through the package stays short."""

import os
import pickle
import sys

import pytest
import torch
from truth import relative

from ortho_kernels import ops, soft_orthogonality, srip
from ortho_kernels.weight_views import (
    column_permutation,
    gradient_slots,
    gradient_strides,
    new_gradient,
    view_weight,
    weight_views,
)

CHANNELS_LAST, CHANNELS_LAST_3D = torch.channels_last, torch.channels_last_3d
IN_PLACE = {
    "linear": lambda: torch.randn(5, 7),
    "linear, transposed": lambda: torch.randn(7, 5).t(),
    "one row": lambda: torch.randn(1, 7),
    "one column": lambda: torch.randn(5, 1),
    "every other row": lambda: torch.randn(10, 7)[::2],
    "every other column": lambda: torch.randn(5, 14)[:, ::2],
    "the first columns": lambda: torch.randn(5, 20)[:, :9],
    "rows and columns apart": lambda: torch.randn(10, 21)[::2, ::3],
    "columns of a transposed": lambda: torch.randn(9, 10).t()[::2, 1:8],
    "one row, repeated": lambda: torch.randn(1, 7).expand(5, 7),
    "one column, repeated": lambda: torch.randn(5, 1).expand(5, 7),
    "one number": lambda: torch.randn(1, 1).expand(5, 7),
    "overlapping": lambda: torch.randn(60).as_strided((5, 7), (3, 2)),
    "a diagonal's view": lambda: torch.randn(100).as_strided((6, 4), (11, 11)),
    "no rows": lambda: torch.randn(0, 7),
    "no columns": lambda: torch.randn(5, 0, 3),
    "kernel": lambda: torch.randn(6, 4, 3, 3),
    "kernel, channels last": lambda: torch.randn(6, 4, 3, 3).to(memory_format=CHANNELS_LAST),
    "kernel, 1 x 1, channels last": lambda: torch.randn(6, 4, 1, 1).to(memory_format=CHANNELS_LAST),
    "kernel, one channel, channels last": lambda: torch.randn(6, 1, 3, 3).to(memory_format=CHANNELS_LAST),
    "kernel, some filters": lambda: torch.randn(12, 4, 3, 3)[::2],
    "kernel, some filters, channels last": lambda: torch.randn(12, 4, 3, 3).to(memory_format=CHANNELS_LAST)[1::3],
    "kernel, some channels, 1 x 1": lambda: torch.randn(6, 8, 1, 1)[:, ::2],
    "kernel, the first channels": lambda: torch.randn(6, 8, 3, 3)[:, :4],
    "kernel, flipped dimensions": lambda: torch.randn(6, 3, 3, 4).permute(0, 3, 2, 1),
    "kernel, width before height": lambda: torch.randn(6, 4, 3, 2).transpose(2, 3),
    "kernel, filters fastest": lambda: torch.randn(4, 3, 3, 6).permute(3, 0, 1, 2),
    "kernel of three dimensions": lambda: torch.randn(6, 4, 2, 3, 3),
    "kernel of three dimensions, channels last": lambda: torch.randn(6, 4, 2, 3, 3).to(memory_format=CHANNELS_LAST_3D),
    "kernel of one dimension": lambda: torch.randn(6, 4, 5),
    "kernel of one dimension, permuted": lambda: torch.randn(6, 5, 4).transpose(1, 2),
    "kernel, one number repeated": lambda: torch.randn(6, 1, 1, 1).expand(6, 4, 3, 3),
}
COPIED = {
    "kernel, every other channel": lambda: torch.randn(6, 8, 3, 3)[:, ::2],
    "kernel, a corner": lambda: torch.randn(6, 4, 5, 5)[:, :, :3, :3],
    "kernel, some channels, channels last": lambda: torch.randn(6, 8, 3, 3).to(memory_format=CHANNELS_LAST)[:, :4],
    "transposed convolution's, transposed": lambda: torch.randn(4, 6, 3, 3).transpose(0, 1),
    "kernel, channels repeated": lambda: torch.randn(6, 1, 3, 3).expand(6, 4, 3, 3),
    "kernel, filters in the middle": lambda: torch.randn(4, 6, 9).transpose(0, 1),
}
OPERATORS = torch.ops.ortho_kernels


def forward(weight, side=0):
    return OPERATORS.soft_orthogonality([weight], [1], [side], 1.0, 1.0, True)


@pytest.mark.parametrize("layout", IN_PLACE)
def test_both_read_in_place(kernels, layout):
    weight = IN_PLACE[layout]().to(torch.get_default_device())
    views = weight_views([weight], 1)
    assert views.in_place([weight])[0] is weight
    view, plain = views.views[0], weight.flatten(1)
    assert view.shape == (1, *plain.shape)
    if weight.numel():  # the columns as they lie in memory
        matrix = weight.as_strided(plain.shape, (view.row_stride, view.column_stride))
        permutation = column_permutation(weight)
        assert torch.equal(matrix, plain if permutation is None else plain[:, permutation])
    for side in (0, 1):
        values, residuals = forward(weight, side)
        torch.testing.assert_close(values, forward(plain.contiguous(), side)[0])
        gradient = new_gradient(weight)
        assert gradient.stride() == gradient_strides(weight)
        wanted = (torch.ones_like(values), [weight], [1], [side], residuals, 0, [gradient], [1], False)
        OPERATORS.soft_orthogonality_backward(*wanted)
        W = plain.double() if side == 0 else plain.double().t()
        truth = 4 * (W @ W.t() - torch.eye(len(W), dtype=W.dtype)) @ W
        computed = gradient.flatten(1).double() if side == 0 else gradient.flatten(1).double().t()
        assert (computed - truth).norm() <= 1e-5 * truth.norm()


@pytest.mark.parametrize("layout", COPIED)
def test_both_find_no_stride(kernels, layout):
    weight = COPIED[layout]().to(torch.get_default_device())
    assert view_weight(weight, 1).column_stride is None
    with pytest.raises(RuntimeError, match=r"weights\[0\].*at one stride in any order"):
        forward(weight)
    leaf = weight.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    given = weight.detach().requires_grad_()
    for penalty, options in ((soft_orthogonality, {}), (srip, {"start": [torch.ones(1, 6)]})):
        value, truth = penalty([given], **options), penalty([leaf], **options)
        torch.testing.assert_close(value, truth)
        (gradient,), (true,) = torch.autograd.grad(value, given), torch.autograd.grad(truth, leaf)
        assert relative(gradient, true.double()) < 1e-6


def test_srip_numbers_columns_as_the_shape_does(kernels):
    """The start vectors of the larger side belong to the columns as the weight's shape has them, in any layout."""
    for layout, make in IN_PLACE.items():
        weight = make().to(torch.get_default_device())
        if not weight.numel():
            continue
        start = [torch.randn(1, weight[0].numel())]
        options = {"side": "cols", "start": start, "iterations": 1, "reduction": "none"}
        torch.testing.assert_close(srip([weight], **options), srip([weight.contiguous()], **options), msg=layout)


@pytest.mark.parametrize("layout", ["linear, transposed", "kernel, channels last", "kernel of one dimension"])
def test_a_gradient_without_gaps_has_its_weights_strides(layout):
    weight = IN_PLACE[layout]()
    assert gradient_strides(weight) == weight.stride()


def in_one_buffer(weights):
    return ops.in_one_buffer(gradient_slots(weights), weights[0].device)


def apart(weights):
    return gradient_slots(weights).apart()


@pytest.mark.parametrize("make", [in_one_buffer, apart])
def test_new_gradients_lie_apart_and_aligned(make):
    """As they are made on a GPU, and on a CPU."""
    weights = [torch.randn(3, 5), torch.randn(4, 2, 3, 3).to(memory_format=CHANNELS_LAST), torch.randn(0, 4)]
    weights += [torch.randn(7, 3, dtype=torch.bfloat16), torch.randn(6, 5, dtype=torch.float64).t()]
    gradients = make(weights)
    for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        assert (gradient.shape, gradient.dtype, gradient.stride()) == (weight.shape, weight.dtype, weight.stride())
        assert not gradient.numel() or gradient.data_ptr() % 16 == 0
        gradient.fill_(index)
    for index, gradient in enumerate(gradients):
        assert (gradient == index).all()
        assert gradient._version == 1  # autograd takes each for a tensor of its own


@pytest.mark.parametrize("make", [in_one_buffer, apart])
def test_new_gradients_within_a_transform(make):
    weights = [torch.randn(3, 5), torch.randn(7, 3)]

    def loss(x):
        first, second = make(weights)
        second.fill_(3)
        return (x * first.fill_(2)).sum() + second.sum()

    assert torch.equal(torch.func.grad(loss)(torch.randn(3, 5)), torch.full((3, 5), 2.0))


def test_views_follow_weights_that_change():
    weights = [torch.nn.Parameter(torch.randn(4, 6)), torch.nn.Parameter(torch.randn(6, 6))]
    before, data = weight_views(weights, 1), weights[1].data
    assert weight_views(weights, 1) is before
    weights[1].data = data.t()
    after = weight_views(weights, 1)
    assert after.views == [view_weight(weight, 1) for weight in weights]
    assert after is not before
    assert after is weight_views(weights, 1)
    weights[1].data = data
    assert weight_views(weights, 1) is before
    weights[0].requires_grad_(False)
    assert weight_views(weights, 1) is before
    assert weight_views(weights[:1] * 2, 1) is weight_views(weights[:1] * 2, 1)
    assert weight_views(weights, [2, 1]) is not before
    with pytest.raises(ValueError, match=r"groups=True"):
        weight_views(weights, [True, True])


def test_gradients_that_fit():
    weights = [torch.randn(4, 6), torch.randn(5, 5)]
    views = weight_views(weights, 1)
    fitting = [new_gradient(weight) for weight in weights]
    transposed, double = [fitting[0], fitting[1].t()], [fitting[0], fitting[1].double()]
    for _ in range(2):
        assert views.fit_gradients(fitting)
        for others in (transposed, double, [fitting[0], None]):
            assert not views.fit_gradients(others)
    alike = weight_views([torch.randn(5, 5), torch.randn(5, 5)], 1)
    assert alike.fit_gradients([torch.randn(5, 5), torch.randn(5, 5)])
    assert not alike.fit_gradients([fitting[1], fitting[1]])
    copied = pickle.loads(pickle.dumps(views))
    assert copied.views == views.views
    assert copied.fit_gradients(fitting)
    assert not copied.fit_gradients(transposed)


@pytest.mark.parametrize("count", [3, 21])
def test_a_call_takes_few_steps(kernels, count):
    """Python's part of a call does not grow with the number of weights."""
    weights = [torch.randn(8, 8, requires_grad=True) for _ in range(count)]
    for _ in range(2):
        soft_orthogonality(weights)
    steps = []

    def record(frame, event, argument):
        if event == "call" and f"{os.sep}ortho_kernels{os.sep}" in frame.f_code.co_filename:
            steps.append(frame.f_code.co_filename)

    sys.setprofile(record)
    try:
        soft_orthogonality(weights)
    finally:
        sys.setprofile(None)
    assert len(steps) <= 22
    assert len(set(steps)) <= 5
