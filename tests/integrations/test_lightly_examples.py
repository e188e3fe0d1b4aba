"""Lightly's examples, with its heads and losses: the callback in that of BYOL, one line in that of SimCLR without Lightning.

As they stand at https://github.com/lightly-ai/lightly/tree/e8d317fc5a87f4387a85a35e689869039ec249ee/examples:
pytorch_lightning/byol.py and pytorch/simclr.py, but for the data, a backbone smaller than ResNet-18, and double precision:
through batch norm, rounding of single precision grows beyond 1e-5 within twenty steps.
"""

import copy

import pytest
import pytorch_lightning as pl
import torch
from convolution_training import OPTIONS, STEPS, WrittenPenalty, check
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.utils.scheduler import cosine_schedule
from lightning_tasks import trainer
from torch import nn
from torch.utils.data import DataLoader

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.integrations.lightning import OrthogonalityCallback

WIDTH = 12


def small_backbone():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, WIDTH, 3),
        nn.AdaptiveAvgPool2d(1),
    )


def loader():
    """Batches whose first part is a pair of views."""
    views = torch.randn(2, 8 * STEPS, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return DataLoader([((x0, x1), 0) for x0, x1 in views.transpose(0, 1)], batch_size=8)


def byol(base):
    """The example's class, as a LightningModule or as a plain module."""

    class BYOL(base):
        def __init__(self):
            super().__init__()
            self.backbone = small_backbone()
            self.projection_head = BYOLProjectionHead(WIDTH, 32, 8)
            self.prediction_head = BYOLPredictionHead(8, 32, 8)
            self.backbone_momentum = copy.deepcopy(self.backbone)
            self.projection_head_momentum = copy.deepcopy(self.projection_head)
            deactivate_requires_grad(self.backbone_momentum)
            deactivate_requires_grad(self.projection_head_momentum)
            self.criterion = NegativeCosineSimilarity()

        def forward(self, x):
            y = self.backbone(x).flatten(start_dim=1)
            z = self.projection_head(y)
            return self.prediction_head(z)

        def forward_momentum(self, x):
            y = self.backbone_momentum(x).flatten(start_dim=1)
            return self.projection_head_momentum(y).detach()

        def training_step(self, batch, batch_idx):
            momentum = cosine_schedule(0, 10, 0.996, 1)
            update_momentum(self.backbone, self.backbone_momentum, m=momentum)
            update_momentum(self.projection_head, self.projection_head_momentum, m=momentum)
            (x0, x1) = batch[0]
            p0, z0 = self.forward(x0), self.forward_momentum(x0)
            p1, z1 = self.forward(x1), self.forward_momentum(x1)
            return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.06)

    return BYOL().double()


@pytest.mark.parametrize("case", OPTIONS)
def test_byol(case):
    """The teacher, a copy of the backbone, is left alone."""
    model = byol(pl.LightningModule)
    callback = OrthogonalityCallback(module="backbone", **OPTIONS[case])
    trainer(pl, callback).fit(model=model, train_dataloaders=loader())

    truth = byol(nn.Module)
    penalty, optimizer = WrittenPenalty(truth.backbone, case), truth.configure_optimizers()
    for index, batch in enumerate(loader()):
        optimizer.zero_grad()
        (truth.training_step(batch, index) + penalty()).backward()
        optimizer.step()
    check(model, truth)


class SimCLR(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(WIDTH, WIDTH, 8)

    def forward(self, x):
        x = self.backbone(x).flatten(start_dim=1)
        return self.projection_head(x)


def train_simclr(penalty_of):
    """The example's loop, whose one new line is the sum of the loss and the penalty."""
    model = SimCLR(small_backbone()).double()
    penalty = penalty_of(model.backbone)
    criterion = NTXentLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    for batch in loader():
        x0, x1 = batch[0]
        z0 = model(x0)
        z1 = model(x1)
        loss = criterion(z0, z1) + penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("case", OPTIONS)
def test_simclr_without_lightning(case):
    model = train_simclr(lambda backbone: OrthogonalityPenalty(backbone, **OPTIONS[case]))
    check(model, train_simclr(lambda backbone: WrittenPenalty(backbone, case)))
