"""The training step: the views of a batch, the method's loss, and the penalty once per optimizer step."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from ortho_kernels import OrthogonalityPenalty

from ..data.pipelines import Pictures
from ..data.views import Views
from ..distributed.processes import Ranks
from ..distributed.sharding import shard
from ..errors import TrainerError
from ..host_copies import Moment
from ..methods import BatchPlace, Method, Output
from ..randomness import seed_globally
from .averages import average_of, follow
from .finite_steps import Batch, FiniteSteps, first_non_finite_layer, first_non_finite_weight
from .optimizers import build_optimizer, build_schedule


class Pretraining(LightningModule):
    """What Lightning trains. The penalty is the plain sum over the encoder, and gamma is applied here.

    So a baseline (gamma 0) is measured as a regularized run is, and differs from it in nothing else.
    """

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
        ranks: Ranks,
        ema: float | None = None,
    ) -> None:
        super().__init__()
        self.method = method
        self.penalty = penalty
        self.gamma = gamma
        self.views = views
        self.optimizer_settings = optimizer_settings
        self.batch_size = batch_size  # images an optimizer step
        self.steps = steps
        self.seed = seed
        self.ranks = ranks
        self.ema = ema
        if ema is not None:
            method.ema = average_of(method.encoder)
        self.last_penalty_raw = torch.zeros(())  # the last step's, before gamma
        self.penalty_time: tuple[Moment, Moment] | None = None  # the start and end of the last step's
        self.finite_steps = FiniteSteps(ranks)

    def configure_model(self) -> None:
        if self.device_mesh is not None:  # fsdp2
            shard(self.method, self.device_mesh["data_parallel"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises TrainerError where the code behind the same options makes another network than when it was saved."""
        saved, own = checkpoint.get("state_dict"), self.state_dict()
        if saved is None:  # fsdp2, which has loaded it already
            return
        differing = saved.keys() ^ own.keys()
        differing |= {name for name in saved.keys() & own.keys() if saved[name].shape != own[name].shape}
        if differing:
            raise TrainerError(
                f"The checkpoint is of another network; it differs in {', '.join(sorted(differing))}. Bring the code back "
                "that wrote it, or start a new run without resume."
            )

    def training_step(self, batch: tuple[Pictures, int], _: int) -> dict[str, Tensor]:
        pictures, number = batch
        loss, projections = self._forward(pictures, number, self.trainer.global_step)
        self.finite_steps.add_batch(Batch(pictures, number, loss.detach()))
        return {"loss": loss, "projections": projections.detach()}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Adds the penalty's gradient, once however many batches a step accumulates.

        Here its value is computed outside autocast, and no loss scaler scales it. Processes have exchanged their
        gradients by now, and each adds the same.
        """
        self.method.before_step(self.trainer.global_step, self.steps)
        if self.gamma:
            self._add_penalty()
        self.stop_if_not_finite(wait=False)
        # With a loss scaler an infinite gradient is no accident: it skips the step and lowers the scale.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        named = [] if scaled else self.method.named_parameters()
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        penalty = self.gamma * self.last_penalty_raw if self.gamma else torch.zeros((), device=self.device)
        self.finite_steps.close(self.trainer.global_step, penalty, gradients)

    def optimizer_step(self, epoch: int, batch: int, optimizer: Any, closure: Callable[[], Any] | None = None) -> None:
        super().optimizer_step(epoch, batch, optimizer, closure)
        self.method.after_step(self.trainer.global_step, self.steps)
        if self.ema is not None and self.method.ema is not None:
            follow(self.method.ema, self.method.encoder, self.ema)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        constant = self.method.constant_rate_modules()
        optimizer = build_optimizer(self.optimizer_settings, self.method, self.batch_size, constant)
        schedule = build_schedule(self.optimizer_settings, optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def penalty_raw(self) -> Tensor:
        """The plain sum, detached: of the last step, or computed where gamma is 0 and no step needed it."""
        if self.gamma:
            return self.last_penalty_raw
        with torch.no_grad():
            return self.penalty()

    def stop_if_not_finite(self, wait: bool) -> None:
        """Raises a TrainerError if a step that is over was not finite.

        Looks at the steps whose figures have arrived, or with `wait` at all of them: before something is written.
        """
        bad = self.finite_steps.first_not_finite(wait)
        if bad is None:
            return
        if bad.penalty is not None:
            what, cause = f"The penalty is {bad.penalty}", "the losses are finite"
        elif bad.batch is None:
            what, cause = "The gradients are not finite", f"backward went wrong at {bad.parameter}"
        else:
            what, cause = f"The loss is {bad.loss}", self._cause(bad.batch, bad.step)
        raise TrainerError(
            f"{what} at step {bad.step}; {cause}. "
            "Lower optimizer.lr (or penalty.gamma) or lengthen optimizer.warmup; the last checkpoint is kept."
        )

    def _forward(self, pictures: Pictures, number: int, step: int) -> Output:
        seed_globally(self.seed, f"step of rank {self.ranks.rank}", number)
        views = self.views(pictures, number)
        self.method.progress = step / self.steps
        self.method.place = BatchPlace(self.seed, number, self.ranks)
        output = self.method(views)
        if not isinstance(output, Output):
            name = type(self.method).__name__
            raise TrainerError(f"{name}.forward gives Output(loss, projections); got a {type(output).__name__}.")
        return output

    def _add_penalty(self) -> None:
        start = Moment(self.device)
        self.last_penalty_raw = self.penalty.accumulate_gradients(self.gamma)
        self.penalty_time = start, Moment(self.device)

    def _cause(self, batch: Batch, step: int) -> str:
        """Found by running the batch once more: momentum and decay alone have moved the weights since."""
        if name := first_non_finite_weight(self.method):
            return f"the first weight that is not finite is {name}"
        if self.ranks.count > 1:  # to run the method once more would take all processes
            return "all weights are still finite"
        with self.trainer.precision_plugin.train_step_context():  # float16 overflows where float32 does not
            name = first_non_finite_layer(self.method, lambda: self._forward(batch.pictures, batch.number, step))
        return f"the first layer whose output is not finite is {name}" if name else "all layers' outputs are finite"
