"""One run, from its configuration to its report."""

import json
import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from ..report.collapse import advice, collapse
from ..report.machine import describe_machine
from ..report.record import RunRecord, write_atomically
from ..report.page import summary, write_report
from ortho_kernels.spectra import effective_rank, rankme, representation_eigenvalues, singular_values

from ..backbones import build_encoder
from ..distributed.batch_norm import convert_batch_norms
from ..engine.checkpoints import Checkpoints, checkpoint_files, read_checkpoint
from ..report.collapse import CollapseAlarm
from ..config import flattened, identity
from ..data import Splits, load_splits, require_variance
from ..errors import TrainerError, writing
from ..probes.evaluation import evaluate
from ..engine.memory_format import apply_memory_format
from ..methods import METHODS
from ..report.metrics_file import MetricsFile, read_metrics
from ..engine.monitor import Monitor, spread
from ..engine.penalties import PENALTIES, build_penalty
from ..data.preprocess import Preprocess
from ..engine.module import Pretraining
from ..distributed.joining import join_group, place_of_this_process
from ..distributed.processes import ALONE, Ranks, launch_processes
from ..engine.progress import Progress
from ..randomness import seed_globally
from .folders import Run, open_run
from ..engine.strategies import build_trainer
from ..data.stream import BatchStream, Order
from ..engine.settings import group_backend, on_gpu, process_count, require_devices, require_processes
from ..data.views import Views, plan_views


def pretrain(config: DictConfig, callbacks: Sequence[Callback] = ()) -> Path:
    """Trains, evaluates the final encoder and writes the report; returns the folder that holds all of it."""
    settings = config.trainer
    require_devices(settings)
    group, place = (group_backend(settings), settings.timeout), place_of_this_process()
    if place is not None:
        require_processes(settings, place)
    if settings.strategy == "single":
        return pretrain_as(ALONE, config, callbacks)
    if place is not None:
        with join_group(place, *group) as ranks:
            return pretrain_as(ranks, config, callbacks)
    if settings.nodes > 1:
        raise TrainerError(f"trainer.nodes={settings.nodes}: start one process for each device by torchrun or SLURM.")
    work = partial(pretrain_as, config=config, callbacks=callbacks)
    return launch_processes(process_count(settings), *group, work)


def pretrain_as(ranks: Ranks, config: DictConfig, callbacks: Sequence[Callback]) -> Path:
    """`pretrain` on one of several processes: all of them train, rank 0 writes."""
    _quieten_lightning()
    _set_threads(config.trainer, ranks)
    splits = load_splits(instantiate(config.data), ranks)
    stream = build_stream(config, splits, ranks)
    module = build_module(config, splits, ranks, steps=len(stream) // config.trainer.accumulate)
    with open_run(config, ranks) as run:
        return _train_and_record(config, run, module, stream, splits, ranks, callbacks)


def _train_and_record(
    config: DictConfig,
    run: Run,
    module: Pretraining,
    stream: BatchStream,
    splits: Splits,
    ranks: Ranks,
    callbacks: Sequence[Callback],
) -> Path:
    if ranks.broadcast(run.finished):
        if ranks.rank == 0:
            print(f"{run.folder} is finished already.")
        return run.folder
    if ranks.rank == 0:
        print(f"{'Resuming' if run.checkpoint else 'Run'} {run.folder}", flush=True)
    splits.broken.persist(run.folder / "broken_pictures.txt")
    start = time.monotonic()
    monitor = fit(config, run, module, stream, ranks, callbacks)
    if ranks.rank > 0:
        return run.folder
    if config.trainer.strategy == "fsdp2":  # this process holds but a part of every weight: read all of them back
        module = build_module(config, splits, ALONE, steps=module.steps)
        module.load_state_dict(read_checkpoint(checkpoint_files(run.checkpoints)[0])["state_dict"])
    record(config, run, module, splits, monitor, seconds=time.monotonic() - start)
    finished = RunRecord.read(run.folder)
    with writing(run.folder / "report.html") as path:
        write_report(path, [finished])
    print(f"{summary([finished])}\nReport: {run.folder / 'report.html'}", flush=True)
    return run.folder


def instantiate(branch: DictConfig) -> Any:
    """The object that a branch of the configuration describes: a source, a backbone, a method's settings, ..."""
    return OmegaConf.to_object(branch)


def build_stream(config: DictConfig, splits: Splits, ranks: Ranks) -> BatchStream:
    settings = config.trainer
    images = splits.pretraining
    order = Order(len(images), settings.batch_size, config.seed, ranks)
    steps = settings.max_steps or max(1, settings.max_epochs * order.per_epoch // settings.accumulate)
    workers = settings.workers
    if workers is None:
        workers = 0 if images.in_memory else max(1, (os.cpu_count() or 1) // ranks.count - 1)
    return BatchStream(images, order, steps * settings.accumulate, workers)


def build_module(config: DictConfig, splits: Splits, ranks: Ranks, steps: int) -> Pretraining:
    """Everything that is drawn here is drawn before the penalty is known, so gamma can't change the initial weights."""
    settings = config.trainer
    seed_globally(config.seed, "initial weights")
    encoder = build_encoder(instantiate(config.backbone), splits.channels, config.data.size)
    apply_memory_format(encoder, settings.channels_last, sharded=settings.strategy == "fsdp2")
    method = METHODS[config.method.name](encoder, instantiate(config.method))
    method.network(config.evaluation.network)  # an error now, not after the training
    if ranks.count > 1 and settings.sync_batchnorm:
        convert_batch_norms(method, on_gpu(settings))
    if settings.compile is not None:
        method.compile(backend=settings.compile)
    sample = splits.pretraining.sample()
    require_variance(sample, config.data.name, config.data.get("root"))
    views = plan_views(config.method.views, instantiate(config.data.views), config.data.size)
    return Pretraining(
        method=method,
        penalty=build_penalty(instantiate(config.penalty), encoder, config.seed),
        gamma=config.penalty.gamma,
        views=Views(views, config.data.size, sample, config.seed, ranks),
        optimizer_settings=config.optimizer,
        batch_size=settings.batch_size * settings.accumulate,
        steps=steps,
        seed=config.seed,
        ranks=ranks,
    )


def fit(
    config: DictConfig,
    run: Run,
    module: Pretraining,
    stream: BatchStream,
    ranks: Ranks,
    callbacks: Sequence[Callback],
) -> Monitor:
    settings = config.trainer
    metrics, progress = MetricsFile(run.folder / "metrics.csv"), Progress(label_of(config))
    alarm = CollapseAlarm(advice(config.method.name))
    monitor = Monitor(metrics, progress, alarm, settings.log_every, settings.batch_size * settings.accumulate, ranks)
    checkpoints = Checkpoints(
        run.checkpoints, settings.checkpoint_every, settings.keep_checkpoints, identity(config), ranks
    )
    loggers = build_loggers(config, run) if ranks.rank == 0 else []
    trainer = build_trainer(settings, ranks, run.folder, loggers, [*callbacks, monitor, checkpoints])
    if settings.precision == "64-true":
        module.double()  # Lightning does so after it has restored a checkpoint, which it would round to float32
    trainer.fit(module, train_dataloaders=stream, ckpt_path=run.checkpoint)
    return monitor


def build_loggers(config: DictConfig, run: Run) -> list[Logger]:
    """Besides metrics.csv, which is always written."""
    loggers: list[Logger] = []
    if config.trainer.tensorboard:
        loggers.append(TensorBoardLogger(run.folder, name="", version="tensorboard", purge_step=run.step + 1))
    if config.trainer.wandb is not None:
        try:
            loggers.append(
                WandbLogger(
                    project=config.trainer.wandb,
                    name=label_of(config),
                    id=run.folder.name,  # a resumed run goes on in the same place
                    save_dir=run.folder,
                    config=identity(config),
                )
            )
        except ModuleNotFoundError:
            raise TrainerError(
                f"trainer.wandb={config.trainer.wandb} needs the package wandb: pip install wandb."
            ) from None
    return loggers


def record(config: DictConfig, run: Run, module: Pretraining, splits: Splits, monitor: Monitor, seconds: float) -> None:
    """Writes what the final encoder is worth (results.json) and what it looks like inside (spectra.json)."""
    encoder = module.method.network(config.evaluation.network)
    scores, features = evaluate(encoder, module.views, splits, config.evaluation, config.seed)
    layers = module.penalty.report()
    eigenvalues = representation_eigenvalues(features)
    results: dict[str, Any] = {
        "label": label_of(config),
        "note": config.note,
        "network": config.evaluation.network,
        **asdict(scores),
        "spread": read_metrics(run.folder / "metrics.csv")[-1]["spread"],
        "representation_spread": spread(features).item(),
        "representation_effective_rank": effective_rank(eigenvalues),
        "representation_rankme": rankme(features),
        "representation_dimensions": features.shape[1],
        # Of the full rank, so that layers of all sizes count alike.
        "weights_effective_rank": _mean([row.effective_rank / min(row.view.rows, row.view.cols) for row in layers]),
        "penalty_raw": sum(row.value for row in layers),
        "steps": module.steps,
        "train_size": len(splits.pretraining),
        "preprocess": asdict(Preprocess.of(module.views)),
        "broken_pictures": len(splits.broken),
        "seconds": seconds,
        **monitor.timings(),
        "machine": describe_machine(),
        "settings": flattened(identity(config)),
    }
    results["collapsed"] = collapse(results) is not None
    spectra = {
        "weights": {
            name: singular_values(weight.detach().reshape(groups, len(weight) // groups, -1)).flatten().tolist()
            for name, weight, groups in module.penalty.weights()
        },
        "representation": eigenvalues.tolist(),
    }
    for name, content in (("spectra.json", spectra), ("results.json", results)):  # results last: they mark the end
        with writing(run.folder / name) as path:
            write_atomically(path, json.dumps(content, indent=1) + "\n")


def label_of(config: DictConfig) -> str:
    """What reports and the progress bar call a run, unless it has a title."""
    if config.title:
        return str(config.title)
    method = METHODS[config.method.name].__name__
    if config.penalty.gamma == 0:
        return f"{method} baseline"
    return f"{method} + {PENALTIES[config.penalty.name].__name__} {config.penalty.gamma:g}"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _set_threads(settings: Any, ranks: Ranks) -> None:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    elif ranks.count > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // process_count(settings)))


def _quieten_lightning() -> None:
    """Its tips and its advice on data loaders are not about this trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for module in ("lightning", "torch.jit", "tensorboard"):
        warnings.filterwarnings("ignore", module=rf"{module}\..*")
