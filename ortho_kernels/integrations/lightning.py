"""The penalty as a callback of Lightning's Trainer, from the package `lightning` or `pytorch_lightning`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from ..penalty import OrthogonalityPenalty
from ..penalty.holders import holder
from .arguments import check_options, check_path, submodule

if TYPE_CHECKING:
    from lightning.pytorch import Callback
else:

    def _callback_class() -> type:
        """The base class of callbacks of each package that is installed: a Trainer asks for that of its own."""
        classes = []
        for package in ("lightning.pytorch", "pytorch_lightning"):
            try:
                classes.append(import_module(package).Callback)
            except ModuleNotFoundError:
                continue
        if not classes:
            raise ImportError("OrthogonalityCallback needs Lightning: `pip install lightning`")
        return type("Callback", tuple(classes), {})

    Callback = _callback_class()

_REFUSED = {  # by the name of the strategy, which has a class in each package
    "FSDPStrategy": "keeps weights flat (FSDP1): take ModelParallelStrategy, with fully_shard (FSDP2) in configure_model",
    "DeepSpeedStrategy": "keeps gradients to itself, where none can be added: take DDPStrategy or ModelParallelStrategy",
}


class OrthogonalityCallback(Callback):
    """Adds the gradient of an `OrthogonalityPenalty` once an optimizer step, however many batches that takes.

    Gradients are unscaled and not yet clipped then. With several optimizers it is added in the steps of the one that holds
    the covered weights. A checkpoint keeps the penalty's state: the steps of SRIP and of schedules, warm start vectors.

    Args:
        kind: `"so"` or `"srip"`, see `OrthogonalityPenalty`.
        module: the submodule of the LightningModule whose weights are penalized, by its dotted path (`"backbone"`); None
            for all of it.
        name: the one under which the value of each step that computes it is logged; None to log nothing.
        options: the other options of `OrthogonalityPenalty` (`gamma`, `include`, `warm_start`, `every`, ...).

    Attributes:
        penalty: the OrthogonalityPenalty, from when fitting starts; None before.

    Raises:
        TypeError, ValueError: for a module that is no path, a name that is none, and as `OrthogonalityPenalty` does; when
            fitting starts, for what the model alone shows, a path that leads nowhere, a strategy or an optimizer that it
            can't serve, covered weights that no optimizer or more than one holds, and two callbacks of one name.
    """

    def __init__(
        self, kind: str = "so", *, module: str | None = None, name: str | None = "penalty", **options: Any
    ) -> None:
        check_path(module)
        if not isinstance(name, str | None):
            raise TypeError(f"name must be a string, or None to log nothing; got {name!r}")
        check_options(OrthogonalityPenalty, kind, options)
        self.penalty: OrthogonalityPenalty | None = None
        self._kind, self._module, self._name, self._options = kind, module, name, options
        self._loaded: dict[str, Any] = {}  # a state that waits for the penalty

    @property
    def state_key(self) -> str:
        """A Trainer may have several, each with a state of its own: they differ in what they log, or in what they cover."""
        return self._generate_state_key(kind=self._kind, module=self._module, name=self._name)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Makes the penalty: the strategy has set up the model and the optimizers by now."""
        for base in type(trainer.strategy).__mro__:
            if base.__name__ in _REFUSED:
                raise ValueError(f"OrthogonalityCallback can't serve {base.__name__}, which {_REFUSED[base.__name__]}")
        names = [each._name for each in trainer.callbacks if isinstance(each, OrthogonalityCallback)]
        if self._name is not None and names.count(self._name) > 1:
            raise ValueError(f"several OrthogonalityCallbacks log {self._name!r}: give each a `name` of its own")
        encoder = submodule(pl_module, self._module)
        if self.penalty is None or self.penalty.encoder is not encoder:  # fitting may go on
            self.penalty = OrthogonalityPenalty(encoder, self._kind, **self._options)
        if isinstance(holder(self.penalty, trainer.optimizers), torch.optim.LBFGS):
            raise ValueError(
                "OrthogonalityCallback can't serve LBFGS, whose line search needs the value of the whole objective: add an "
                "OrthogonalityPenalty to the loss in training_step instead"
            )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Takes up a checkpoint, which some strategies load before `on_fit_start`, and some after it."""
        if self._loaded and self.penalty is not None:
            self.penalty.load_state_dict(self._loaded)
            self._loaded = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: torch.optim.Optimizer) -> None:
        """Adds the gradient in the step of the optimizer that holds the covered weights."""
        assert self.penalty is not None
        if len(trainer.optimizers) > 1 and holder(self.penalty, trainer.optimizers) is not optimizer:
            return
        # Lightning has unscaled the gradients, unless the optimizer does so in its step, as torch's fused ones do.
        unscales = getattr(optimizer, "_step_supports_amp_scaling", False)
        scaler = getattr(trainer.precision_plugin, "scaler", None) if unscales else None
        calls = self.penalty.calls
        computed = calls is None or calls.is_due()  # the 0 of a step that `every` leaves out says nothing
        value = self.penalty.accumulate_gradients(scaler=scaler)
        if computed and self._name is not None:
            pl_module.log(self._name, value)

    def state_dict(self) -> dict[str, Any]:
        return self._loaded or ({} if self.penalty is None else self.penalty.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict
