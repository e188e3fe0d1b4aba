"""The training step: two views, the method's loss, and the penalty once per optimizer step."""

import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from ortho_kernels import OrthogonalityPenalty

from .errors import TrainerError
from .methods import Method
from .optimizers import build_optimizer, build_schedule
from .randomness import seed_globally
from .views import Views


class Pretraining(LightningModule):
    """What Lightning trains. The penalty measures the plain sum over the encoder; gamma is applied here, so that a
    baseline (gamma 0) is measured in the same way as a regularized run and differs from it in nothing else."""

    def __init__(
        self,
        method: Method,
        penalty: OrthogonalityPenalty,
        gamma: float,
        views: Views,
        optimizer_settings: Any,
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.method = method
        self.penalty = penalty
        self.gamma = gamma
        self.views = views
        self.optimizer_settings = optimizer_settings
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.last_residual = torch.zeros(())  # the plain sum that the last step's penalty was made of
        self.penalty_seconds = 0.0  # of the last step

    def training_step(self, batch: tuple[Tensor, int], _: int) -> dict[str, Tensor]:
        pixels, number = batch
        seed_globally(self.seed, "step", number)
        loss, projections = self.method(*self.views(pixels, number))
        if not loss.isfinite():
            raise TrainerError(self._diagnosis(loss))
        return {"loss": loss, "projections": projections.detach()}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds the penalty's gradient: here it is added once however many batches a step accumulates, its value is
        computed outside autocast and is not scaled by a loss scaler."""
        if self.gamma == 0:
            return
        self._wait_for_device()
        start = time.perf_counter()
        self.last_residual = self.penalty.accumulate_gradients(scale=self.gamma)
        self._wait_for_device()
        self.penalty_seconds = time.perf_counter() - start

    def optimizer_step(self, epoch: int, batch: int, optimizer: Any, closure: Callable[[], Any] | None = None) -> None:
        super().optimizer_step(epoch, batch, optimizer, closure)
        self.method.after_step(self.trainer.global_step, self.steps)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        optimizer = build_optimizer(self.optimizer_settings, self.method, self.batch_size)
        schedule = build_schedule(self.optimizer_settings, optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _diagnosis(self, loss: Tensor) -> str:
        broken = first_non_finite(self.method)
        cause = f"the first weight that is not finite is {broken}" if broken else "all weights are still finite"
        return (
            f"The loss is {loss.item()} at step {self.trainer.global_step}; {cause}. "
            "Lower optimizer.lr (or penalty.gamma) or lengthen optimizer.warmup; the last checkpoint is kept."
        )

    def _wait_for_device(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def first_non_finite(module: nn.Module) -> str | None:
    """The name of the first parameter that holds NaN or Inf, in the order of the forward pass."""
    return next((name for name, value in module.named_parameters() if not value.isfinite().all()), None)
