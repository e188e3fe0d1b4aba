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

from ..backbones import build_encoder
from ..config import flattened, identity
from ..data import Splits, load_splits, require_variance
from ..data.order import Order
from ..data.pipelines import build_pipeline
from ..data.preprocess import Preprocess
from ..data.stream import BatchStream
from ..data.view_settings import View, plan_views
from ..data.views import Views
from ..distributed.batch_norm import convert_batch_norms
from ..distributed.joining import join_group, place_of_this_process
from ..distributed.processes import ALONE, Ranks, launch_processes, print_once
from ..engine.checkpoints import Checkpoints, checkpoint_files, read_checkpoint
from ..engine.evaluations import Evaluations
from ..engine.memory_format import apply_memory_format
from ..engine.module import Pretraining
from ..engine.monitor import Monitor, spread
from ..engine.penalties import PENALTIES, build_penalty
from ..engine.progress import Progress
from ..engine.settings import group_backend, on_gpu, process_count, require_devices, require_processes
from ..engine.small_maps import refuse_small_maps
from ..engine.strategies import build_trainer
from ..errors import TrainerError, writing
from ..methods import METHODS
from ..probes.augmented import Augmentation
from ..probes.evaluation import evaluate
from ..probes.running import RunningProbe
from ..probes.spectra import encoder_spectra, of_weights, pictures_looked_at, representation_results
from ..randomness import seed_globally
from ..report.atomic_writing import write_atomically
from ..report.collapse import SLOW_STARTS, CollapseAlarm, advice, collapse
from ..report.machine import describe_machine
from ..report.metrics_file import MetricsFile, read_metrics
from ..report.page import write_report
from ..report.record import RunRecord
from ..report.text_summary import summary
from .folders import Run, open_run
from .illustration import write_illustration
from .judged import load_judged
from .prolonging import format_prolonged, note_prolonged
from .starts import Start, fill, prepare_start


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
    quieten_lightning()
    _set_threads(config.trainer, ranks)
    splits = load_splits(instantiate(config.data), ranks)
    judged = load_judged(config, splits, ranks)
    config, start = prepare_start(config, splits.channels, ranks)
    stream = build_stream(config, splits, ranks)
    steps = len(stream) // config.trainer.accumulate
    config = note_prolonged(config, steps, ranks)
    module = build_module(config, splits, ranks, steps, start)
    with open_run(config, ranks) as run:
        if start is not None and run.checkpoint is None:
            print_once(start.describe(module.method.encoder))
        if prolonged := format_prolonged(config, run.folder, run.step, steps):
            print_once(prolonged)
        return _train_and_record(config, run, module, stream, splits, judged, ranks, callbacks)


def _train_and_record(
    config: DictConfig,
    run: Run,
    module: Pretraining,
    stream: BatchStream,
    splits: Splits,
    judged: Splits,
    ranks: Ranks,
    callbacks: Sequence[Callback],
) -> Path:
    if ranks.broadcast(run.finished):
        if ranks.rank == 0:
            print(f"{run.folder} is finished already.")
        return run.folder
    if ranks.rank == 0:
        print(f"{'Resuming' if run.checkpoint else 'Run'} {run.folder}", flush=True)
    for each in (splits, judged):
        each.broken.persist(run.folder / "broken_pictures.txt")
    start = time.monotonic()
    monitor = fit(config, run, module, stream, judged, ranks, callbacks)
    if ranks.rank > 0:
        return run.folder
    if config.trainer.strategy == "fsdp2":  # this process holds but a part of every weight: read all of them back
        module = build_module(config, splits, ALONE, steps=module.steps)
        module.load_state_dict(read_checkpoint(checkpoint_files(run.checkpoints)[0])["state_dict"])
    record(config, run, module, splits, judged, monitor, seconds=time.monotonic() - start)
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
    steps = planned_steps(settings, order.per_epoch)
    pipeline = build_pipeline(config.data.get("pipeline"), planned_views(config), images, config.seed)
    workers = settings.workers
    if workers is None:
        copies = images.in_memory and not pipeline.needs_workers
        workers = 0 if copies else max(1, (os.cpu_count() or 1) // ranks.count - 1)
    return BatchStream(images, order, steps * settings.accumulate, workers, pipeline)


def planned_steps(settings: Any, batches_per_epoch: int) -> int:
    """Optimizer steps of a run."""
    return settings.max_steps or max(1, settings.max_epochs * batches_per_epoch // settings.accumulate)


def planned_views(config: DictConfig) -> list[View]:
    return plan_views(config.method.views, instantiate(config.data.views), config.data.size)


def build_module(
    config: DictConfig, splits: Splits, ranks: Ranks, steps: int, start: Start | None = None
) -> Pretraining:
    """Everything that is drawn here is drawn before the penalty is known, so gamma can't change the initial weights."""
    settings = config.trainer
    seed_globally(config.seed, "initial weights")
    encoder = build_encoder(instantiate(config.backbone), splits.channels, config.data.size)
    if start is not None:
        fill(encoder, start, config, splits.channels)
    apply_memory_format(encoder, settings.channels_last, sharded=settings.strategy == "fsdp2")
    if settings.precision == "bf16-mixed" and not on_gpu(settings):
        refuse_small_maps(encoder)
    method = METHODS[config.method.name](encoder, instantiate(config.method))
    if ranks.count > 1 and settings.sync_batchnorm:
        convert_batch_norms(method, on_gpu(settings))
    if settings.compile is not None:
        method.compile(backend=settings.compile)
    sample = splits.pretraining.sample()
    require_variance(sample, config.data.name, config.data.get("root"))
    module = Pretraining(
        method=method,
        penalty=build_penalty(instantiate(config.penalty), encoder, config.seed),
        gamma=config.penalty.gamma,
        views=Views(planned_views(config), config.data.size, sample, config.seed, ranks),
        optimizer_settings=config.optimizer,
        batch_size=settings.batch_size * settings.accumulate,
        steps=steps,
        seed=config.seed,
        ranks=ranks,
        ema=settings.ema,
    )
    method.network(config.evaluation.network)  # an error now, not after the training
    return module


def fit(
    config: DictConfig,
    run: Run,
    module: Pretraining,
    stream: BatchStream,
    judged: Splits,
    ranks: Ranks,
    callbacks: Sequence[Callback],
) -> Monitor:
    settings = config.trainer
    metrics = MetricsFile(run.folder / "metrics.csv")
    progress = Progress(label_of(config), run.folder / "progress.json")
    alarm = CollapseAlarm(advice(config.method.name), SLOW_STARTS.get(config.method.name))
    images_per_step = settings.batch_size * settings.accumulate
    monitor = Monitor(metrics, progress, alarm, settings.log_every, images_per_step, ranks, settings.stop_on_collapse)
    evaluations = build_evaluations(config, run, module, stream, judged, monitor)
    checkpoints = Checkpoints(
        run.checkpoints, settings.checkpoint_every, settings.keep_checkpoints, identity(config), ranks
    )
    loggers = build_loggers(config, run) if ranks.rank == 0 else []
    trainer = build_trainer(settings, ranks, run.folder, loggers, [*callbacks, monitor, *evaluations, checkpoints])
    if settings.precision == "64-true":
        module.double()  # Lightning does so after it has restored a checkpoint, which it would round to float32
    trainer.fit(module, train_dataloaders=stream, ckpt_path=run.checkpoint)
    return monitor


def build_evaluations(
    config: DictConfig, run: Run, module: Pretraining, stream: BatchStream, judged: Splits, monitor: Monitor
) -> list[Callback]:
    """The one that judges the encoder while it trains, if `evaluation.every` asks for it."""
    settings = config.evaluation
    if settings.every is None:
        return []
    return [
        Evaluations(
            file=MetricsFile(run.folder / "evaluations.csv"),
            probe=RunningProbe(judged, settings, config.seed, module.ranks),
            monitor=monitor,
            method=module.method,
            network=settings.network,
            order=stream.order,
            every=settings.every,
            accumulate=config.trainer.accumulate,
        )
    ]


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


def record(
    config: DictConfig,
    run: Run,
    module: Pretraining,
    splits: Splits,
    judged: Splits,
    monitor: Monitor,
    seconds: float,
) -> None:
    """Writes what the final encoder is worth (results.json) and what it looks like inside (spectra.json)."""
    encoder = module.method.network(config.evaluation.network)
    scores, features = evaluate(encoder, module.views, judged, config.evaluation, config.seed)
    layers = module.penalty.report()
    preprocess = Preprocess.of(module.views)
    looked_at = pictures_looked_at(judged, config.evaluation.test_images, config.seed)
    write_illustration(run.folder / "illustration.png", module.method, module.views, looked_at, config.seed)
    spectra = encoder_spectra(
        encoder,
        of_weights(module.penalty.weights()),
        features,
        looked_at,
        module.views.plain,
        config.seed,
        Augmentation(planned_views(config), config.data.get("pipeline"), preprocess, config.seed),
    )
    results: dict[str, Any] = {
        "label": label_of(config),
        "note": config.note,
        "network": config.evaluation.network,
        **(asdict(scores) if scores is not None else {}),
        "representation_images": len(features),
        "spread": read_metrics(run.folder / "metrics.csv")[-1]["spread"],
        "representation_spread": spread(features).item(),
        "representation_effective_rank": spectra.representation.effective_rank,
        "representation_rankme": spectra.representation.rankme,
        **representation_results(spectra),
        "representation_dimensions": features.shape[1],
        # Of the full rank, so that layers of all sizes count alike.
        "weights_effective_rank": _mean([row.effective_rank / min(row.view.rows, row.view.cols) for row in layers]),
        "penalty_raw": sum(row.value for row in layers),
        "steps": module.steps if monitor.stopped_at is None else monitor.stopped_at,
        "planned_steps": module.steps,
        "train_size": len(splits.pretraining),
        "preprocess": asdict(preprocess),
        "broken_pictures": len(splits.broken),
        "left_out": splits.left_out.with_broken(splits.broken).as_dict(),
        **({"data_origin": splits.origin} if splits.origin else {}),
        "seconds": seconds,
        **monitor.timings(),
        "machine": describe_machine(),
        "settings": flattened(identity(config)),
    }
    results["collapsed"] = collapse(results) is not None
    for name, content in (
        ("spectra.json", spectra.as_dict()),
        ("results.json", results),
    ):  # results last: they mark the end
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


def quieten_lightning() -> None:
    """Its tips and its advice on data loaders are not about this trainer."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    for module in ("lightning", "torch.jit", "tensorboard"):
        warnings.filterwarnings("ignore", module=rf"{module}\..*")
