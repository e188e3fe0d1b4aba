"""Pictures whose numbers have no correlation left: what the paper's proposition assumes of a layer's input."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ortho_kernels.spectra import StreamingCovariance

from ...errors import TrainerError

LEAST = 1e-10  # of the largest eigenvalue; what is below is the rounding of float32, not variance of pictures
MOST_NUMBERS = 3 * 64 * 64  # of a picture: their covariance takes 1.2 GB


class Whitening:
    """ZCA: a picture x, as a vector of d numbers, becomes C^(-1/2) (x - mean), with mean and covariance C of a sample.

    Of all whitenings it changes pictures least, so neighbors stay neighbors. Directions without variance in the sample
    (pixels that never change) stay at 0.

    Attributes:
        rank: the directions that have variance; the covariance of the sample, whitened, is the identity on these.

    Raises TrainerError for a sample of no more pictures than numbers, which would leave directions without variance.
    """

    def __init__(self, batches: Iterable[Tensor]) -> None:
        """Takes float pictures `(batch, channels, height, width)`."""
        sample = StreamingCovariance()
        for images in batches:
            numbers = images[0].numel()
            if numbers > MOST_NUMBERS:
                raise TrainerError(
                    f"Pictures of {numbers:,} numbers are too large to whiten: {MOST_NUMBERS:,} is the most. Give a smaller "
                    "size, or inputs=noise,real."
                )
            sample.update(images.flatten(1))
        if sample.count <= len(sample.mean):
            raise TrainerError(
                f"Whitening pictures of {len(sample.mean):,} numbers takes more than {len(sample.mean):,} of them; got "
                f"{sample.count:,}. Raise whitening, give a smaller size, or inputs=noise,real."
            )
        values, vectors = torch.linalg.eigh(sample.covariance())
        kept = values > LEAST * values[-1]
        self.rank = int(kept.sum())
        scales = torch.where(kept, values, 1.0).rsqrt() * kept
        self._mean = sample.mean
        self._matrix = (vectors * scales) @ vectors.T

    def __call__(self, images: Tensor) -> Tensor:
        """The same pictures, whitened, in their own dtype."""
        vectors = images.flatten(1).to(torch.float64) - self._mean
        return (vectors @ self._matrix).to(images.dtype).view_as(images)
