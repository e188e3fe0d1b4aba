"""One run, from its configuration to its report."""

import json
import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig

from ortho_kernels import OrthogonalityPenalty
from ortho_kernels.diagnostics.machine import describe_machine
from ortho_kernels.diagnostics.record import RunRecord, write_whole
from ortho_kernels.diagnostics.report import summary, write_report
from ortho_kernels.diagnostics.spectra import (
    effective_rank,
    rankme,
    representation_eigenvalues,
    singular_values,
)

from .backbones import build_backbone
from .checkpoints import AtomicFiles, Checkpoints
from .config import flattened, identity
from .data import SOURCES, Splits
from .errors import TrainerError, writing
from .evaluation import evaluate
from .limits import check_limits
from .methods import METHODS
from .metrics_file import MetricsFile
from .monitor import Monitor
from .pretraining import Pretraining
from .progress import Progress
from .randomness import seed_globally
from .runs import Run, open_run
from .stream import BatchStream
from .views import Views


def pretrain(config: DictConfig, callbacks: Sequence[Callback] = ()) -> Path:
    """Trains, evaluates the final encoder and writes the report; returns the folder that holds all of it."""
    _quieten_lightning()
    check_limits(config)
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    splits = SOURCES[config.data.name].load(config.data)
    stream = build_stream(config, splits)
    module = build_module(config, splits, steps=len(stream) // config.trainer.accumulate)
    run = open_run(config)
    if run.finished:
        print(f"{run.folder} is finished already.")
        return run.folder
    print(f"{'Resuming' if run.checkpoint else 'Run'} {run.folder}", flush=True)
    start = time.monotonic()
    monitor = fit(config, run, module, stream, callbacks)
    record(config, run, module, splits, monitor, seconds=time.monotonic() - start)
    finished = RunRecord.read(run.folder)
    with writing(run.folder / "report.html") as path:
        write_report(path, [finished])
    print(f"{summary([finished])}\nReport: {run.folder / 'report.html'}", flush=True)
    return run.folder


def build_stream(config: DictConfig, splits: Splits) -> BatchStream:
    settings = config.trainer
    stream = BatchStream(splits.train.pixels, settings.batch_size, batches=0, seed=config.seed)
    steps = settings.max_steps or max(1, settings.max_epochs * stream.per_epoch // settings.accumulate)
    stream.batches = steps * settings.accumulate
    return stream


def build_module(config: DictConfig, splits: Splits, steps: int) -> Pretraining:
    """Everything that is drawn here is drawn before the penalty is known, so gamma can't change the initial weights."""
    seed_globally(config.seed, "initial weights")
    encoder = build_backbone(config.backbone, splits.channels, config.data.size)
    method = METHODS[config.method.name](encoder, config.method)
    options = {key: value for key, value in config.penalty.items() if key not in ("kind", "gamma")}
    try:
        penalty = OrthogonalityPenalty(encoder, kind=config.penalty.kind, gamma=1.0, **options)
    except (TypeError, ValueError) as error:
        raise TrainerError(f"penalty: {error}") from None
    return Pretraining(
        method=method,
        penalty=penalty,
        gamma=config.penalty.gamma,
        views=Views(config.data.views, config.data.size, splits.train.pixels, config.seed),
        optimizer_settings=config.optimizer,
        batch_size=config.trainer.batch_size * config.trainer.accumulate,
        steps=steps,
        seed=config.seed,
    )


def fit(
    config: DictConfig, run: Run, module: Pretraining, stream: BatchStream, callbacks: Sequence[Callback]
) -> Monitor:
    """The whole run is one Lightning epoch over one stream of batches, so a resume is the same in any place of it."""
    settings = config.trainer
    progress = Progress(label_of(config))
    images_per_step = settings.batch_size * settings.accumulate
    monitor = Monitor(MetricsFile(run.folder / "metrics.csv"), progress, settings.log_every, images_per_step)
    checkpoints = Checkpoints(run.checkpoints, settings.checkpoint_every, identity(config))
    try:
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=1,
            precision=settings.precision,
            max_epochs=1,
            accumulate_grad_batches=settings.accumulate,
            logger=TensorBoardLogger(run.folder, name="", version="tensorboard", purge_step=run.step + 1),
            callbacks=[*callbacks, monitor, checkpoints],
            plugins=[AtomicFiles()],
            default_root_dir=run.folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (ValueError, MisconfigurationException) as error:  # a device or a precision that is not to be had here
        raise TrainerError(f"trainer: {error}") from None
    trainer.fit(module, train_dataloaders=stream, ckpt_path=run.checkpoint)
    return monitor


def record(config: DictConfig, run: Run, module: Pretraining, splits: Splits, monitor: Monitor, seconds: float) -> None:
    """Writes what the final encoder is worth (results.json) and what it looks like inside (spectra.json)."""
    encoder = module.method.encoder
    scores, features = evaluate(encoder, module.views, splits, config.evaluation, config.seed)
    layers = module.penalty.report()
    eigenvalues = representation_eigenvalues(features)
    results: dict[str, Any] = {
        "label": label_of(config),
        "note": config.note,
        **asdict(scores),
        "representation_effective_rank": effective_rank(eigenvalues),
        "representation_rankme": rankme(features),
        "representation_dimensions": features.shape[1],
        # Of the full rank, so that layers of all sizes count alike.
        "weights_effective_rank": _mean([row.effective_rank / min(row.view.rows, row.view.cols) for row in layers]),
        "residual": sum(row.value for row in layers),
        "steps": module.steps,
        "train_size": len(splits.train),
        "seconds": seconds,
        **monitor.timings(),
        "machine": describe_machine(),
        "settings": flattened(identity(config)),
    }
    spectra = {
        "weights": {
            name: singular_values(weight.detach().reshape(groups, len(weight) // groups, -1)).flatten().tolist()
            for name, weight, groups in module.penalty.weights()
        },
        "representation": eigenvalues.tolist(),
    }
    for name, content in (("spectra.json", spectra), ("results.json", results)):  # results last: they mark the end
        with writing(run.folder / name) as path:
            write_whole(path, json.dumps(content, indent=1) + "\n")


def label_of(config: DictConfig) -> str:
    """What reports and the progress bar call a run, unless it has a title."""
    if config.title:
        return str(config.title)
    method = METHODS[config.method.name].__name__
    if config.penalty.gamma == 0:
        return f"{method} baseline"
    return f"{method} + {config.penalty.kind.upper()} {config.penalty.gamma:g}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _quieten_lightning() -> None:
    """Its tips and its advice on data loaders are not about this trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for module in ("lightning", "torch.jit", "tensorboard"):
        warnings.filterwarnings("ignore", module=rf"{module}\..*")
