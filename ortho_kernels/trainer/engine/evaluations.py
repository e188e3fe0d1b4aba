"""Judges the encoder while it trains: a row of scores every few epochs, for evaluations.csv and the loggers."""

import copy
import math
import time
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..data.order import Order
from ..host_copies import Moment
from ..methods import Method
from ..probes.running import RunningProbe
from ..randomness import preserve_global_generators
from ..report.metrics_file import MetricsFile
from .module import Pretraining
from .monitor import Monitor


class Evaluations(Callback):
    """Changes nothing of the run: a copy of the network, in evaluation mode, takes its weights and is judged.

    So no mode, hook or batch statistic of the network that trains is touched. Weights that are shared out over processes
    are gathered. Every process takes part, with its share of the pictures.
    """

    def __init__(
        self,
        file: MetricsFile,
        probe: RunningProbe,
        monitor: Monitor,
        method: Method,
        network: str,
        order: Order,
        every: float,
        accumulate: int,
    ) -> None:
        self.file = file
        self.probe = probe
        self.monitor = monitor
        self.network = network
        self.copy = copy.deepcopy(method.network(network)).eval()
        self.order = order
        self.every = every  # epochs
        self.accumulate = accumulate
        self.seconds = 0.0  # that evaluations took
        self.start = 0.0
        self.last_step = 0

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.start = time.monotonic()
        self.last_step = trainer.global_step
        self.copy.to(module.device)
        if self.monitor.writes:
            self.file.open(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        step = trainer.global_step
        if step == self.last_step:  # a batch that was only accumulated
            return
        self.last_step = step
        if self._is_due(step) or step == module.steps or trainer.should_stop:
            module.stop_if_not_finite(wait=True)
            Moment(module.device).wait()  # the training steps' time is not the evaluation's
            start = time.monotonic()
            row = self._row(module, step)
            row["seconds"] = time.monotonic() - start
            self.seconds += row["seconds"]
            if self.monitor.writes:
                self._write(trainer, row)
            self.monitor.restart_clock(module.device)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        self.file.close()

    def on_exception(self, trainer: Trainer, module: Any, exception: BaseException) -> None:
        self.file.close()

    def _is_due(self, step: int) -> bool:
        """Whether a multiple of `every` epochs, which may be a fraction of one, ends with this step, or within it."""
        batches = self.every * self.order.per_epoch
        return step * self.accumulate // batches > (step - 1) * self.accumulate // batches

    def _row(self, module: Pretraining, step: int) -> dict[str, float]:
        with preserve_global_generators(module.device):
            scores = self.probe(self._judged(module), module.views)
        layers = {f"penalty/{name}": value for name, value in module.penalty.values().items()}
        epoch = step * self.accumulate / self.order.per_epoch
        return {"step": step, "epoch": epoch, **asdict(scores), "seconds": math.nan, **layers}

    def _judged(self, module: Pretraining) -> nn.Module:
        """The copy with the weights and statistics of the network as it stands."""
        state = module.method.network(self.network).state_dict()
        self.copy.load_state_dict({name: _whole_copy(value) for name, value in state.items()}, assign=True)
        return self.copy

    def _write(self, trainer: Trainer, row: dict[str, float]) -> None:
        self.file.write(row)
        shown = {
            key if key.startswith("penalty/") else f"evaluation/{key}": value
            for key, value in row.items()
            if key not in ("step", "epoch") and not math.isnan(value)
        }
        for logger in trainer.loggers:
            logger.log_metrics(shown, int(row["step"]))
        knn = "" if math.isnan(row["knn"]) else f"kNN {row['knn']:.2%}, "
        share = self.seconds / (time.monotonic() - self.start)
        self.monitor.progress.print(
            f"step {row['step']}, epoch {row['epoch']:.3g}: {knn}effective rank {row['effective_rank']:.4g}, RankMe "
            f"{row['rankme']:.4g} (took {row['seconds']:.2g} s; {share:.1%} of the time so far)"
        )


def _whole_copy(value: Any) -> Any:
    if isinstance(value, DTensor):
        return value.full_tensor()
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
