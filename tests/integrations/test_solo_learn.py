"""solo-learn, which pins libraries too old to be installed beside these: the callback with a stand-in of its interface.

It is that of solo/methods/base.py, byol.py and main_pretrain.py at
https://github.com/vturrisi/solo-learn/tree/9187ea39c2c3f43c455ab06664d2b019a9802954: `backbone` (`encoder` in old versions),
`momentum_backbone`, `classifier`, `learnable_params` as groups of one optimizer, a scheduler of each step, batches of
`[indexes, crops, targets]`, an own `optimizer_zero_grad`, a momentum update after each optimizer step, channels_last.
"""

import math

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from convolution_training import OPTIONS, STEPS, WrittenPenalty, check
from lightning_tasks import trainer
from torch import nn
from torch.utils.data import DataLoader

from ortho_kernels.integrations.lightning import OrthogonalityCallback

ACCUMULATE = 2
WIDTH, CLASSES = 10, 3


def small_backbone():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, WIDTH, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def loader():
    generator = torch.Generator().manual_seed(1)
    crops = torch.randn(8 * ACCUMULATE * STEPS, 2, 3, 8, 8, dtype=torch.float64, generator=generator)
    data = [(index, [*pair], index % CLASSES) for index, pair in enumerate(crops)]
    return DataLoader(data, batch_size=8)


class Network(nn.Module):
    """What a momentum method of solo-learn holds, and its losses; `name` is the attribute of its backbone."""

    def build(self, name):
        torch.manual_seed(0)
        self.name = name
        setattr(self, name, small_backbone())
        setattr(self, f"momentum_{name}", small_backbone())
        self.classifier = nn.Linear(WIDTH, CLASSES)
        self.projector = nn.Sequential(nn.Linear(WIDTH, 16), nn.ReLU(), nn.Linear(16, 8))
        for online, momentum in zip(self.online.parameters(), self.teacher.parameters(), strict=True):
            momentum.data.copy_(online.data)
            momentum.requires_grad = False
        return self.to(torch.float64, memory_format=torch.channels_last)  # of which a CPU is slow at float32

    @property
    def online(self):
        return getattr(self, self.name)

    @property
    def teacher(self):
        return getattr(self, f"momentum_{self.name}")

    @property
    def learnable_params(self):
        return [
            {"name": self.name, "params": self.online.parameters()},
            {"name": "classifier", "params": self.classifier.parameters(), "lr": 0.1, "weight_decay": 0},
            {"name": "projector", "params": self.projector.parameters()},
        ]

    def optimizer(self):
        return torch.optim.SGD(self.learnable_params, lr=0.05, weight_decay=1e-4, momentum=0.9)

    def scheduler(self, optimizer):
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

    def loss(self, batch):
        _, crops, targets = batch
        features = [self.online(crop.to(memory_format=torch.channels_last)) for crop in crops]
        with torch.no_grad():
            wanted = [self.projector(self.teacher(crop)) for crop in reversed(crops)]
        classes = [nn.functional.cross_entropy(self.classifier(own.detach()), targets) for own in features]
        pairs = zip(features, wanted, strict=True)
        similarity = [nn.functional.cosine_similarity(self.projector(own), other).mean() for own, other in pairs]
        return sum(classes) / len(classes) - sum(similarity)

    def update_teacher(self, step):
        tau = 1.0 - 0.1 * (math.cos(math.pi * step / STEPS) + 1) / 2
        for online, momentum in zip(self.online.parameters(), self.teacher.parameters(), strict=True):
            momentum.data = tau * momentum.data + (1 - tau) * online.data


def method(pl, name):
    """A LightningModule with the hooks of solo-learn's."""

    class BaseMomentumMethod(Network, pl.LightningModule):
        def configure_optimizers(self):
            optimizer = self.optimizer()
            return [optimizer], [{"scheduler": self.scheduler(optimizer), "interval": "step", "frequency": 1}]

        def optimizer_zero_grad(self, epoch, batch_idx, optimizer, *_):
            optimizer.zero_grad(set_to_none=True)

        def training_step(self, batch, batch_idx):
            return self.loss(batch)

        def on_train_start(self):
            self.last_step = 0

        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.trainer.global_step > self.last_step:
                self.update_teacher(self.trainer.global_step)
            self.last_step = self.trainer.global_step

    return BaseMomentumMethod().build(name)


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.parametrize(
    ("pl", "name"), [(lightning.pytorch, "backbone"), (pytorch_lightning, "encoder")], ids=["backbone", "encoder"]
)
def test_a_momentum_method(pl, name, case):
    model = method(pl, name)
    callback = OrthogonalityCallback(module=name, **OPTIONS[case])
    trainer(pl, callback, accumulate_grad_batches=ACCUMULATE).fit(model, loader())

    truth = Network().build(name)
    penalty, optimizer = WrittenPenalty(truth.online, case), truth.optimizer()
    scheduler = truth.scheduler(optimizer)
    batches = iter(loader())
    for step in range(STEPS):
        optimizer.zero_grad()
        for _ in range(ACCUMULATE):
            (truth.loss(next(batches)) / ACCUMULATE).backward()
        penalty().backward()
        optimizer.step()
        scheduler.step()
        truth.update_teacher(step + 1)
    check(model, truth)
