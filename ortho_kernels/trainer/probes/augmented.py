"""The features of augmented views of pictures, drawn as a run draws its own: what LiDAR is computed of."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ortho_kernels.spectra.forward_passes import evaluation_mode

from ..data import Images
from ..data.order import Order
from ..data.pipelines import build_pipeline
from ..data.preprocess import Preprocess
from ..data.view_settings import View
from ..data.views import Views
from ..randomness import generator_for, seed_for

LARGE = 2  # views of a run's plan that are drawn; those of multi-crop after them are small
BATCH = 250  # pictures whose views are drawn at a time


@dataclass(frozen=True)
class Augmentation:
    """How a run draws the views of its pictures."""

    plan: Sequence[View]
    pipeline: str | None  # data.pipeline
    preprocess: Preprocess
    seed: int

    @torch.no_grad()
    def features(self, encoder: nn.Module, images: Images, pictures: int, views: int) -> Tensor:
        """Features `(pictures, views, dimensions)`, float32 on the CPU, with the encoder in evaluation mode.

        Fewer pictures where there are no more, or where some can't be decoded; an odd number of views is rounded up. All
        that is drawn is a function of the seed, and nothing of it was drawn in training.
        """
        images = _readable(images.subset(pictures, generator_for("cpu", self.seed, "pictures of LiDAR")))
        if len(images) < 2:
            return torch.empty(len(images), 0, 0)
        seed = seed_for(self.seed, "views of LiDAR")
        pipeline = build_pipeline(self.pipeline, self.plan, images, seed)
        draw = self._views(encoder, seed)
        device = draw.mean.device
        order = Order(len(images), min(BATCH, len(images)), seed)
        rounds = -(-views // LARGE)
        tables = []
        with evaluation_mode(encoder):
            for part, indices in enumerate(torch.arange(len(images)).split(order.batch_size)):
                seen = []
                for number in range(part * rounds, (part + 1) * rounds):
                    crops = pipeline.prepare(images, indices, number, order)
                    crops = [view.to(device) for view in crops] if isinstance(crops, list) else crops.to(device)
                    seen += [encoder(view.to(draw.mean.dtype)).float().cpu() for view in draw(crops, number)[:LARGE]]
                tables.append(torch.stack(seen, 1))
        return torch.cat(tables)

    def _views(self, encoder: nn.Module, seed: int) -> Views:
        """With the statistics of the run's pictures, on the device and in the dtype of the encoder."""
        preprocess = self.preprocess
        blank = torch.zeros(2, preprocess.channels, preprocess.decode_size, preprocess.decode_size, dtype=torch.uint8)
        views = Views(list(self.plan), preprocess.size, blank, seed)
        for buffer, values in ((views.mean, preprocess.mean), (views.std, preprocess.std)):
            buffer.copy_(torch.tensor(values)[:, None, None])
        weight = next(encoder.parameters())
        return views.to(weight.device, weight.dtype)


def _readable(images: Images) -> Images:
    """Those that can be decoded: another picture in the place of one would be another class."""
    parts = torch.arange(len(images)).split(BATCH)
    kept = [indices[images.read(indices)[1]] for indices in parts]
    return images.select(torch.cat(kept)) if kept else images
