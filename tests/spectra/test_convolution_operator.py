"""A convolution's singular values against the explicit matrix of its map, built column by column."""

import math

import pytest
import torch
import torch.nn.functional as F

from ortho_kernels.spectra import operator_singular_values

CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def explicit_matrix(weight, size, stride, dilation, groups):
    """Each column is the output for one input that is 1 at one place, wrapped around the borders."""
    channels = weight.shape[1] * groups
    columns = []
    for place in range(channels * math.prod(size)):
        unit = torch.zeros(channels * math.prod(size), dtype=torch.float64)
        unit[place] = 1
        maps = unit.reshape(1, channels, *size)
        for axis, (side, kernel, step) in enumerate(zip(size, weight.shape[2:], dilation, strict=True)):
            maps = maps.index_select(axis + 2, torch.arange(side + (kernel - 1) * step) % side)
        columns.append(CONVOLVE[len(size)](maps, weight, stride=stride, dilation=dilation, groups=groups).flatten())
    return torch.stack(columns, 1)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "dilation", "groups"),
    [
        ((3, 2, 3, 3), (4, 4), (1, 1), (1, 1), 1),
        ((3, 2, 3, 3), (4, 6), (2, 2), (1, 1), 1),
        ((4, 2, 3, 2), (6, 4), (2, 1), (1, 2), 2),
        ((4, 3, 3), (6,), (3,), (1,), 2),
        ((2, 3, 5, 5), (3, 4), (1, 2), (1, 1), 1),  # a kernel that reaches around
        ((2, 2, 1, 1), (3, 3), (1, 1), (1, 1), 1),
        ((5, 2, 1, 1), (4, 4), (2, 2), (1, 1), 1),  # a shortcut of a ResNet: it drops three places of four
        ((2, 1, 2, 2, 3), (2, 2, 4), (1, 1, 2), (1, 1, 1), 1),
        ((4, 1, 3, 3), (5, 5), (1, 1), (1, 1), 4),  # depthwise
    ],
)
def test_it_has_the_singular_values_of_the_explicit_matrix(shape, size, stride, dilation, groups):
    weight = torch.randn(shape, dtype=torch.float64)
    expected = torch.linalg.svdvals(explicit_matrix(weight, size, stride, dilation, groups))
    values = operator_singular_values(weight, size, stride=stride, dilation=dilation, groups=groups)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)


def test_few_frequencies_at_a_time_give_the_same(monkeypatch):
    weight = torch.randn(3, 2, 3, 3)
    expected = operator_singular_values(weight, (6, 5))
    monkeypatch.setattr("ortho_kernels.spectra.convolution_operator.VALUES", 1)
    torch.testing.assert_close(operator_singular_values(weight, (6, 5)), expected)


def test_a_transposed_convolution_is_the_adjoint_of_a_convolution():
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64)  # three maps in, two out, twice as large
    units = torch.eye(3 * 2 * 2, dtype=torch.float64).reshape(-1, 3, 2, 2)
    matrix = F.conv_transpose2d(units, weight, stride=2).flatten(1).T
    values = operator_singular_values(weight, (4, 4), stride=2)
    torch.testing.assert_close(values, torch.linalg.svdvals(matrix))


def test_a_shift_is_orthogonal_and_its_filter_is_too():
    weight = torch.zeros(2, 2, 3, 3)
    weight[0, 0, 0, 2] = weight[1, 1, 2, 1] = 1
    torch.testing.assert_close(operator_singular_values(weight, (5, 5)), torch.ones(50, dtype=torch.float64))


def test_orthogonal_filters_may_be_a_map_that_is_not():
    """One filter of nine equal entries and norm 1 is an orthogonal row, and blurs: 3 for flat maps, 0 for a stripe of 3."""
    values = operator_singular_values(torch.full((1, 1, 3, 3), 1 / 3), (6, 6))
    assert values.max() == pytest.approx(3)
    assert values.min() == pytest.approx(0, abs=1e-12)


def test_a_broken_weight_has_nan():
    weight = torch.randn(3, 2, 3, 3)
    weight[0, 0, 0, 0] = math.nan
    values = operator_singular_values(weight, (4, 6), stride=2)
    assert values.shape == (18,)
    assert values.isnan().all()


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((3, 2), {"input_size": (4, 4)}, "convolution's weight is"),
        ((3, 2, 3, 3), {"input_size": (4,)}, "input_size must be 2 numbers from 1"),
        ((3, 2, 3, 3), {"input_size": (5, 5), "stride": 2}, "must divide the input's size"),
        ((3, 2, 3, 3), {"input_size": (4, 4), "stride": 0}, "stride must be 2 numbers from 1"),
        ((3, 2, 3, 3), {"input_size": (4, 4), "groups": 2}, "groups=2 must divide the 3 filters"),
    ],
)
def test_bad_input_is_refused(shape, options, said):
    with pytest.raises(ValueError, match=said):
        operator_singular_values(torch.ones(shape), **options)
