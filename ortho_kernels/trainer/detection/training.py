"""The training of a detector: SGD with a warm-up, whose every step is a function of the seed and its number.

So a training that was cut off goes on from its checkpoint, on a CPU to the bit.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import SGD

from ..engine.finite_steps import first_non_finite_weight
from ..engine.stop_request import StopRequest
from ..errors import TrainerError
from ..probes.progress_lines import with_progress
from ..randomness import preserve_global_generators, seed_globally
from .batches import Batches
from .checkpoint import Checkpoint
from .settings import DetectorSettings

WARMUP_START = 1e-3  # share of the rate in the first step
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")  # as torchvision names them
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


def train(detector: nn.Module, batches: Batches, settings: DetectorSettings, checkpoint: Checkpoint) -> Tensor:
    """Trains the detector in place and returns its losses `(steps, 4)`, in the order of LOSSES, on the CPU.

    Raises TrainerError where a loss is not finite, for a checkpoint of other options, and when the process is asked to stop
    (SIGTERM, Ctrl-C), after it has saved.
    """
    steps, seed = settings.steps, batches.seed
    assert steps is not None
    optimizer = SGD(weight_groups(detector, settings.weight_decay), lr=settings.lr, momentum=settings.momentum)
    losses = torch.zeros(steps, len(LOSSES), dtype=torch.float64)
    start = checkpoint.restore(detector, optimizer, losses)
    detector.train()
    with preserve_global_generators(batches.device), StopRequest() as stop:
        for step in with_progress(range(start, steps), steps - start, "steps of the detector"):
            for group in optimizer.param_groups:
                group["lr"] = rate_at(settings, step)
            pictures, targets = batches[step]
            seed_globally(seed, "detector step", step)  # which anchors and regions are learned from
            found = detector(pictures, targets)
            losses[step] = torch.stack([found[name].detach() for name in LOSSES])
            if not losses[step].isfinite().all():
                values = ", ".join(f"{name} {value:g}" for name, value in zip(LOSSES, losses[step], strict=True))
                raise TrainerError(
                    f"The detector's losses at step {step} are {values}: give a smaller lr, or more warmup."
                )
            optimizer.zero_grad()
            sum(found.values()).backward()
            optimizer.step()
            done = step + 1
            if done % checkpoint.every == 0 or done == steps or stop:
                _require_finite_weights(detector, step)
                checkpoint.save(done, detector, optimizer, losses)
            if stop and done < steps:
                raise TrainerError(f"Stopped by {stop.name} at step {done}, which is saved: continue with resume=auto.")
    return losses


def _require_finite_weights(detector: nn.Module, step: int) -> None:
    if name := first_non_finite_weight(detector):
        raise TrainerError(
            f"{name} is not finite after step {step}, which is not saved: give a smaller lr, or more warmup."
        )


def rate_at(settings: DetectorSettings, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    assert settings.steps is not None
    assert settings.milestones is not None
    rate = settings.lr * settings.batch_size / 16
    if step < settings.warmup:
        rate *= WARMUP_START + (1 - WARMUP_START) * step / settings.warmup
    passed = sum(step >= round(share * settings.steps) for share in settings.milestones)
    return rate / 10**passed


def weight_groups(detector: nn.Module, decay: float) -> list[dict[str, Any]]:
    """All weights; those of norms don't decay."""
    of_norms = {id(p) for layer in detector.modules() if isinstance(layer, NORMS) for p in layer.parameters()}
    weights = list(detector.parameters())
    return [
        {"params": [weight for weight in weights if id(weight) not in of_norms], "weight_decay": decay},
        {"params": [weight for weight in weights if id(weight) in of_norms], "weight_decay": 0.0},
    ]


@torch.no_grad()
def take_statistics(detector: nn.Module, batches: Batches, first: int, count: int) -> None:
    """Sets the running statistics of all batch norms to the mean over `count` batches, from number `first` on.

    detectron2 calls this precise batch norm. The running ones lag behind the weights.
    """
    norms = [layer for layer in detector.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    momenta = [layer.momentum for layer in norms]
    if not norms or not count:
        return
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    detector.train()
    with preserve_global_generators(batches.device):
        for number in with_progress(range(first, first + count), count, "batches of the batch norms"):
            pictures, targets = batches[number]
            seed_globally(batches.seed, "detector step", number)
            detector(pictures, targets)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
