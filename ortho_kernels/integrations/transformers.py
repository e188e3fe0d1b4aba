"""The penalty in transformers' Trainer: `Trainer(..., callbacks=[OrthogonalityCallback("so")])`."""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.training_args import OptimizerNames

from ..penalty.gradient_scaling import has_unscaled
from ..penalty.holders import holder
from ..penalty.lora import LoraPenalty
from ..penalty.module import OrthogonalityPenalty
from .arguments import check_options, check_path, submodule

_log = logging.getLogger("ortho_kernels")


class OrthogonalityCallback(TrainerCallback):
    """Adds the penalty's gradient once an optimizer step, after the Trainer's clipping, which leaves it alone.

    The penalty is made when training begins, of the model as Accelerate has prepared it: alone, under DDP, or sharded by
    FSDP2. Under fp16 its gradient is scaled where the Trainer's still is. The Trainer's logs get its mean over the steps
    since the last log. Each checkpoint keeps its state in a file of its own, from which `resume_from_checkpoint` goes on.

    Args:
        kind: as in `OrthogonalityPenalty`.
        module: the dotted path of the submodule whose weights are penalized (`"vit"`); None for the whole model.
        name: what the value is called in the logs, and the file in a checkpoint. Two callbacks need two names.
        options: those of `OrthogonalityPenalty` (`gamma`, `include`, `warm_start`, `lora="factors"`, ...); or
            `lora="products"` and those of `LoraPenalty`, of which kind "so" is the only one.

    Attributes:
        penalty: the `OrthogonalityPenalty` or `LoraPenalty` since training began; None before.

    Raises:
        TypeError, ValueError: for a module that is no path, a name that is none, and as the penalty itself does; when
            training begins, for what the model alone shows, a path that leads nowhere, covered weights that the optimizer
            does not hold, DeepSpeed, FSDP1, optimizers that step within the backward, and a checkpoint to resume from that
            is not found.
    """

    def __init__(self, kind: str = "so", *, module: str | None = None, name: str = "penalty", **options: Any) -> None:
        check_path(module)
        if not isinstance(name, str) or not name:
            raise TypeError(f"name must be a string, which the logs and a file in each checkpoint get; got {name!r}")
        check_options(_make_penalty, kind, options)
        self.kind, self.module, self.name, self.options = kind, module, name, options
        self.penalty: OrthogonalityPenalty | LoraPenalty | None = None
        self._sum: torch.Tensor | float = 0.0  # of the values since the last log, on their device
        self._steps = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        _refuse(args, parts["model"])
        self._sum, self._steps = 0.0, 0
        self.penalty = _make_penalty(submodule(parts["model"], self.module), self.kind, **self.options)
        if isinstance(self.penalty, OrthogonalityPenalty):
            holder(self.penalty, [parts["optimizer"]])
        if state.global_step and self.penalty.state_dict():
            self._resume(args, state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        assert self.penalty is not None
        scaler = parts["optimizer"].scaler
        # Clipping has unscaled the gradients, and so has measuring their norm, but not where they lie on several meshes.
        if scaler is not None and has_unscaled(scaler):
            scaler = None
        self._sum = self._sum + self.penalty.accumulate_gradients(scaler=scaler)
        self._steps += 1

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        logs = parts["logs"]
        if "loss" not in logs or not self._steps:  # those of an evaluation, or of the end
            return
        if self.name in logs:
            raise ValueError(f"the logs have {self.name!r} already: give OrthogonalityCallback another `name`")
        logs[self.name] = state.log_history[-1][self.name] = float(self._sum) / self._steps
        self._sum, self._steps = 0.0, 0

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        assert self.penalty is not None
        kept = {"global_step": state.global_step, "penalty": self.penalty.state_dict()}  # on every process
        if state.is_hyper_param_search or not args.should_save:  # a search keeps each trial elsewhere, and resumes none
            return
        path = _checkpoint(args, state) / f"{self.name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)  # a name may have a slash, as in "train/penalty"
        partial = path.with_suffix(".partial")
        torch.save(kept, partial)
        os.replace(partial, path)

    def _resume(self, args: TrainingArguments, state: TrainerState) -> None:
        """The Trainer says to no callback where the checkpoint lies: it is in `output_dir`, or the arguments say so too."""
        assert self.penalty is not None
        given = args.resume_from_checkpoint
        folder = Path(given) if given and os.path.isdir(given) else _checkpoint(args, state)
        if not folder.is_dir():
            raise ValueError(
                f"training goes on from step {state.global_step}, but the penalty can't, since {folder} is not there: give "
                "TrainingArguments the same resume_from_checkpoint as train()"
            )
        path = folder / f"{self.name}.pt"
        if not path.exists():
            _log.warning("%s is not there: the penalty's calls and start vectors begin anew", path)
            return
        kept = torch.load(path, map_location="cpu", weights_only=True)
        if kept["global_step"] != state.global_step:
            raise ValueError(
                f"{path} is of step {kept['global_step']}, but training goes on from step {state.global_step}: give "
                "TrainingArguments the same resume_from_checkpoint as train()"
            )
        self.penalty.load_state_dict(kept["penalty"])


def _make_penalty(model: nn.Module, kind: str, **options: Any) -> OrthogonalityPenalty | LoraPenalty:
    if options.get("lora") != "products":
        return OrthogonalityPenalty(model, kind, **options)
    if kind != "so":
        raise ValueError(f'lora="products" has the kind "so" alone; got {kind!r}')
    del options["lora"]
    return LoraPenalty(model, **options)


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    assert args.output_dir is not None
    return Path(args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


def _refuse(args: TrainingArguments, model: nn.Module) -> None:
    """Raises where the optimizer would not see a gradient that is added before its step."""
    if args.deepspeed_plugin is not None:
        raise ValueError(
            "DeepSpeed keeps gradients flat, and clips and steps by itself: train with DDP, or with FSDP2 by "
            "TrainingArguments(fsdp=True)"
        )
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise ValueError(
            "FSDP1 (FullyShardedDataParallel) keeps weights flat between uses: take FSDP2, by "
            'TrainingArguments(fsdp=True, fsdp_config={"version": 2})'
        )
    if "layerwise" in args.optim or "lomo" in args.optim:
        raise ValueError(
            f"{OptimizerNames(args.optim).value} steps within the backward, before the penalty's gradient is there: take "
            "another `optim`"
        )
