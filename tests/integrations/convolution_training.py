"""A small network, and its training in plain torch: without a Trainer, and with the penalty by its formula."""

from collections import OrderedDict
from contextlib import nullcontext

import torch
from torch import nn
from truth import relative, residual, sigma
from written_out import start_vector

STEPS = 20
BATCH = 4
# The learning rate is small and gamma large: where rounding flips a last bit of a weight in bfloat16, little follows.
OPTIONS = {  # of the penalty, by case
    "so": {"kind": "so", "gamma": 0.5},
    "srip": {"kind": "srip", "gamma": 1.25},
    "warm srip": {"kind": "srip", "gamma": 1.25, "warm_start": True},
}


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 4 * 4, 5))
        return nn.Sequential(OrderedDict(backbone=backbone, head=nn.Linear(5, 4)))


def images(batches=STEPS):
    return torch.randn(batches * BATCH, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def loss_of(model, batch):
    return (model(batch) - 1).square().mean()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.002, momentum=0.9)


def fused_adam(parameters):
    return torch.optim.Adam(parameters, lr=0.002, fused=True)


class WrittenPenalty:
    """`gamma * sum` over the conv and linear weights of a module, in float64. SRIP starts from the package's vectors."""

    def __init__(self, module, case):
        self.weights = {name: weight for name, weight in module.named_parameters() if weight.ndim > 1}
        self.warm, self.options = case == "warm srip", OPTIONS[case]
        self.step, self.ends = 0, {}

    def __call__(self):
        value = sum(self._value(name, weight.flatten(1).double()) for name, weight in self.weights.items())
        self.step += 1
        return self.options["gamma"] * value

    def _value(self, name, W):
        R = residual(W, "small")
        if self.options["kind"] == "so":
            return R.square().sum()
        x = self.ends.get(name)
        if x is None:
            x = start_vector(name, W, self.step)
        if self.warm:
            self.ends[name] = nn.functional.normalize((R @ (R @ x)).detach(), dim=0)
        return sigma(W, x)


def trained(data, case, *, accumulate=1, clip=None, dtype=None, scaler=None, optimizer=sgd):
    """The network after a step for each `accumulate` batches; without a penalty where `case` is None."""
    model = network()
    penalty = WrittenPenalty(model.backbone, case) if case else lambda: torch.zeros((), requires_grad=True)
    optimizer = optimizer(model.parameters())
    scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
    for batches in data.split(BATCH * accumulate):
        optimizer.zero_grad()
        for batch in batches.split(BATCH):
            with torch.autocast("cpu", dtype) if dtype else nullcontext():
                loss = loss_of(model, batch)
            scaler.scale(loss / accumulate).backward()
        scaler.scale(penalty()).backward()
        if clip:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
    return model


def distances(model, truth):
    """How far each parameter of the model is from that of the truth, relative in norm."""
    names = [name for name, _ in model.named_parameters()]
    pairs = zip(model.parameters(), truth.parameters(), strict=True)
    return dict(zip(names, (relative(one.detach(), other.detach().double()) for one, other in pairs), strict=True))


def check(model, truth):
    """The same weights, but for rounding."""
    found = distances(model, truth)
    assert max(found.values()) < 1e-5, found
