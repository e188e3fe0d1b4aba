"""The peer of the trainer's throughput: SimCLR on CIFAR as Lightly's CIFAR-10 benchmark sets it up, stated anew.

Its network (`ResNetGenerator`), head, loss, optimizer and transform (without blur, as there), and PIL images that worker
processes transform one by one. A bare loop trains, without Lightning and logging, and the images are decoded already:
both are to its advantage.
"""

import time
from collections.abc import Iterator

import torch
from lightly.loss import NTXentLoss
from lightly.models import ResNetGenerator
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class _Pictures(Dataset):
    def __init__(self, pixels: Tensor) -> None:
        self.images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
        self.transform = SimCLRTransform(input_size=32, gaussian_blur=0.0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        first, second = self.transform(self.images[index])
        return first, second


class LightlySimCLR(nn.Module):
    def __init__(self, width: float, hidden: int, projection: int) -> None:
        super().__init__()
        resnet = ResNetGenerator("resnet-18", width=width)
        self.backbone = nn.Sequential(*list(resnet.children())[:-1], nn.AdaptiveAvgPool2d(1))
        self.projection_head = SimCLRProjectionHead(int(512 * width), hidden, projection)
        self.criterion = NTXentLoss()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.criterion(*(self.projection_head(self.backbone(x).flatten(1)) for x in (first, second)))


def step_seconds(pixels: Tensor, batch_size: int, steps: int, workers: int, width: float) -> Iterator[float]:
    """The time of each step, waiting for its data included."""
    model = LightlySimCLR(width, hidden=512, projection=128)
    optimizer = torch.optim.SGD(model.parameters(), lr=6e-2, momentum=0.9, weight_decay=5e-4)
    loader = DataLoader(_Pictures(pixels), batch_size, shuffle=True, drop_last=True, num_workers=workers)
    start = time.perf_counter()
    for _, (first, second) in zip(range(steps), loader, strict=False):
        optimizer.zero_grad()
        model(first, second).backward()
        optimizer.step()
        now = time.perf_counter()
        yield now - start
        start = now
