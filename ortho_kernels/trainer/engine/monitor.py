"""Watches a run: one row of figures every few steps, for the CSV file, TensorBoard and the progress bar."""

import statistics
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from ..distributed.processes import Ranks
from ..host_copies import Moment
from ..report.collapse import CollapseAlarm
from ..report.metrics_file import MetricsFile
from .module import Pretraining
from .progress import Progress

WARM_STEPS = 3  # the first steps of a process allocate and tune; they don't count in the timings


@dataclass(frozen=True)
class Times:
    """When a step started and ended, and its penalty, if it had one."""

    start: Moment
    end: Moment
    penalty: tuple[Moment, Moment] | None


class Monitor(Callback):
    """Times are medians, so that what else the machine does for a moment is not charged to the run."""

    def __init__(
        self,
        metrics: MetricsFile,
        progress: Progress,
        alarm: CollapseAlarm,
        every: int,
        images_per_step: int,
        ranks: Ranks,
        stops_on_collapse: bool = False,
    ) -> None:
        self.ranks = ranks
        self.writes = ranks.rank == 0
        self.metrics = metrics
        self.progress = progress
        self.alarm = alarm
        self.every = every
        self.images_per_step = images_per_step
        self.step_seconds: list[float] = []
        self.penalty_seconds: list[float] = []
        self.unread: deque[Times] = deque()
        self.measured_step = 0
        self.last_end: Moment | None = None
        self.stops_on_collapse = stops_on_collapse
        self.stopped_at: int | None = None  # the step after which a run that has collapsed takes no other
        self.lr = 0.0  # that the last step was taken with; the schedule has moved on when the step ends

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.measured_step = trainer.global_step
        if self.writes:
            for row in self.metrics.open(trainer.global_step):  # what the alarm had heard before it was cut off
                self.alarm.update(int(row["step"]), module.steps, row["spread"])
            self.progress.start(trainer.global_step, module.steps)
        self.restart_clock(module.device)
        self._stop_if_collapsed(trainer, module)

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: torch.optim.Optimizer) -> None:
        self.lr = optimizer.param_groups[0]["lr"]

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        step = trainer.global_step
        if step == self.measured_step:  # a batch that was only accumulated
            return
        now = Moment(module.device)
        assert self.last_end is not None
        self.unread.append(Times(self.last_end, now, module.penalty_time))
        self.last_end = now
        self.measured_step = step
        if step % self.every == 0 or step in (1, module.steps):
            module.stop_if_not_finite(wait=True)
            self._read_times(wait=True)
            row = self._row(trainer, module, outputs)  # on every rank: it takes all of them
            if self.writes:
                self._write(trainer, row, step)
                if warning := self.alarm.update(step, module.steps, row["spread"]):
                    self.progress.print(warning)
            self._stop_if_collapsed(trainer, module)
        else:
            self._read_times(wait=False)
        if self.writes:
            self.progress.advance(step)

    def restart_clock(self, device: torch.device) -> None:
        """Now the next step begins: what was done since the last one ended counts in none."""
        self.last_end = Moment(device)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self._read_times(wait=True)
        self.close()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        self.progress.close()
        self.metrics.close()

    def timings(self) -> dict[str, float]:
        """What this process has measured; empty if it ran too few steps."""
        steps, penalties = self.step_seconds[WARM_STEPS:], self.penalty_seconds[WARM_STEPS:]
        if not steps:
            return {}
        step, penalty = statistics.median(steps), statistics.median(penalties)
        return {
            "images_per_second": self.images_per_step / step,
            "step_ms": 1e3 * step,
            "penalty_ms": 1e3 * penalty,
            "penalty_share": penalty / step,
        }

    def _stop_if_collapsed(self, trainer: Trainer, module: Pretraining) -> None:
        """All processes stop together; rank 0 alone has the alarm."""
        step = trainer.global_step
        if not self.stops_on_collapse or step == module.steps or not self.ranks.broadcast(self.alarm.raised):
            return
        self.stopped_at = step
        trainer.should_stop = True
        if self.writes:
            self.progress.print(f"Stopped at step {step} of {module.steps}: collapsed.")

    def _read_times(self, wait: bool) -> None:
        """Of the steps that the device has ended, or with `wait` of all."""
        while self.unread and (wait or self.unread[0].end.passed()):
            times = self.unread.popleft()
            self.step_seconds.append(times.end.seconds_since(times.start))
            self.penalty_seconds.append(times.penalty[1].seconds_since(times.penalty[0]) if times.penalty else 0.0)

    def _write(self, trainer: Trainer, row: dict[str, float], step: int) -> None:
        self.metrics.write(row)
        for logger in trainer.loggers:
            logger.log_metrics({key: value for key, value in row.items() if key != "step"}, step)
        self.progress.describe(row)

    def _row(self, trainer: Trainer, module: Pretraining, outputs: dict[str, Tensor]) -> dict[str, float]:
        window = slice(-self.every, None)
        step_seconds = statistics.median(self.step_seconds[window])
        penalty_seconds = statistics.median(self.penalty_seconds[window])
        penalty_raw = module.penalty_raw()  # before gamma, so that a baseline shows how far from orthogonal it drifts
        return {
            "step": trainer.global_step,
            "loss": trainer.strategy.reduce(outputs["loss"], reduce_op="mean").item(),
            "penalty": module.gamma * penalty_raw.item(),
            "penalty_raw": penalty_raw.item(),
            "spread": spread(outputs["projections"]).item(),
            "lr": self.lr,
            "images_per_second": self.images_per_step / step_seconds,
            "penalty_share": penalty_seconds / step_seconds,
        }


def spread(projections: Tensor) -> Tensor:
    """The collapse indicator: std over the batch of the normalized projections, times sqrt(dim). 1 when they point
    evenly in all directions, 0 when all of them are the same."""
    directions = torch.nn.functional.normalize(projections.float(), dim=1)
    return directions.std(0).mean() * projections.shape[1] ** 0.5
