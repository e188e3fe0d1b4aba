"""The singular values of a convolution as the linear map of whole maps that it is, beside those of its filters."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

VALUES = 2**22  # complex numbers of the frequencies that are worked on at a time: 64 MiB


def operator_singular_values(
    weight: Tensor,
    input_size: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """All singular values of a convolution of maps of this size with circular padding, descending.

    At each frequency the convolution is a matrix of output times input channels (Sedghi, Gupta & Long, ICLR 2019, arXiv
    1805.10408). A stride folds the frequencies that it can't tell apart into one wider matrix. The matrices are the
    kernel's discrete Fourier transform, summed over its few taps.

    Layers mostly pad with zeros; the values then differ at borders, little where maps are larger than kernels. The
    padding's width only shifts the output.

    Args:
        weight: `(out, in / groups, *kernel)`, a convolution of one or more dimensions, of any floating dtype and device.
            That of a transposed convolution is read as that of the convolution which it is the adjoint of: its values are
            the same, and `input_size` is then the size of its output.
        input_size: the size of the maps that go in, one number a dimension of the kernel. It may be below the kernel's.
        stride, dilation: a number, or one a dimension.
        groups: as in the layer.

    Returns:
        float64 on the CPU, one value for each of min(outputs, inputs) of the map of all positions; NaN for a weight that
        is not finite.

    Raises:
        ValueError: for a weight without spatial dimensions, sizes of another number of dimensions, or a stride that does
            not divide the input's size: the map is then not circular.
    """
    kernel = tuple(weight.shape[2:])
    if not kernel:
        raise ValueError(f"a convolution's weight is (out, in / groups, *kernel), got shape {tuple(weight.shape)}")
    size = _one_each("input_size", input_size, kernel)
    stride, dilation = _one_each("stride", stride, kernel), _one_each("dilation", dilation, kernel)
    if any(side % step for side, step in zip(size, stride, strict=True)):
        raise ValueError(f"stride {stride} must divide the input's size {size}; give the next size that it divides")
    if groups < 1 or len(weight) % groups:
        raise ValueError(f"groups={groups} must divide the {len(weight)} filters")
    filters = weight.detach().to("cpu", torch.float64).reshape(groups, len(weight) // groups, weight.shape[1], -1)
    outputs = [side // step for side, step in zip(size, stride, strict=True)]
    count = groups * math.prod(outputs) * min(filters.shape[1], filters.shape[2] * math.prod(stride))
    if not filters.isfinite().all():
        return filters.new_full((count,), torch.nan)

    frequencies, repeats = _distinct(outputs)
    if math.prod(kernel) == 1:  # all frequencies alike
        frequencies, repeats = frequencies[:1], torch.tensor([math.prod(outputs)])
    # Shifts by whole outputs, seen from the input: what a stride can't tell apart.
    aliases = _grid(stride) * torch.tensor(outputs)
    taps = _grid(kernel) * torch.tensor(dilation)
    values = []
    room = max(1, VALUES // max(filters[..., 0].numel() * len(aliases), 1))
    for part in frequencies.split(room):
        turns = (part[:, None] + aliases).double() / torch.tensor(size)  # (frequencies, aliases, dimensions)
        phases = torch.exp(-2j * math.pi * (turns @ taps.double().T))
        matrices = torch.einsum("goit,fat->fgoia", filters.to(torch.complex128), phases).flatten(3)
        values.append(torch.linalg.svdvals(matrices / math.sqrt(len(aliases))).flatten(1))
    return torch.cat(values).repeat_interleave(repeats, 0).flatten().sort(descending=True).values


def _distinct(outputs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Output frequencies of which no two are opposite, and how many each stands for: a real kernel's matrices at opposite
    frequencies are conjugate, so their singular values are the same."""
    grid = _grid(outputs)
    place = torch.tensor([math.prod(outputs[axis + 1 :]) for axis in range(len(outputs))])
    here, opposite = grid @ place, (-grid % torch.tensor(outputs)) @ place
    kept = here <= opposite
    return grid[kept], torch.where(here == opposite, 1, 2)[kept]


def _grid(shape: Sequence[int]) -> Tensor:
    """All index tuples of that shape, `(product, dimensions)`."""
    return torch.cartesian_prod(*[torch.arange(side) for side in shape]).reshape(-1, len(shape))


def _one_each(option: str, given: int | Sequence[int], kernel: Sequence[int]) -> tuple[int, ...]:
    sizes = (given,) * len(kernel) if isinstance(given, int) else tuple(given)
    if len(sizes) != len(kernel) or any(side < 1 for side in sizes):
        raise ValueError(
            f"{option} must be {len(kernel)} numbers from 1, as the kernel {tuple(kernel)} has; got {given}"
        )
    return sizes
