"""Detection with a trained encoder: a detector is built on it, trained, and scored; a file says what came out."""

import time
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from ..backbones import build_encoder
from ..detection.average_precision import average_precision
from ..detection.batches import Batches
from ..detection.checkpoint import Checkpoint
from ..detection.networks import KINDS, build_detector
from ..detection.scoring import predict
from ..detection.settings import DetectorSettings, DetectSettings
from ..detection.stages import split_stages
from ..detection.training import LOSSES, take_statistics, train
from ..detection.voc import VOC, read_voc
from ..engine.memory_format import apply_memory_format
from ..errors import TrainerError
from ..randomness import preserve_global_generators, seed_globally
from ..report.evaluated import read_evaluations
from ..report.machine import describe_machine
from .evaluation_files import file_name, spell, write_evaluated
from .exams import exam_seed, find_device
from .many_exams import record_of
from .trained import Trained

RANDOM = "random"  # the network of a run before its training
LOSS_ROWS = 100  # of the losses in the file


@dataclass(frozen=True)
class Pictures:
    train: VOC
    test: VOC


def with_random_weights(encoders: Sequence[Trained], seed: int | None) -> list[Trained]:
    """The runs' encoders as they were before their training, or with another seed would have been; alike ones once.

    Raises TrainerError for files, which do not say how their weights were drawn.
    """
    alike: dict[str, Trained] = {}
    for trained in encoders:
        if trained.config is not None:
            weights = (exam_seed(trained, seed), trained.config.backbone, trained.preprocess)
            alike.setdefault(str(weights), trained)
    if not alike:
        raise TrainerError(f"{RANDOM} needs a RUN beside it, whose network it takes: a file says no seed.")
    return [_before_training(trained, exam_seed(trained, seed)) for trained in alike.values()]


def _before_training(trained: Trained, seed: int) -> Trained:
    assert trained.config is not None
    backbone: Any = OmegaConf.to_object(trained.config.backbone)
    with preserve_global_generators(torch.device("cpu")):
        seed_globally(seed, "initial weights")
        encoder = build_encoder(backbone, trained.preprocess.channels, trained.preprocess.size)
    apply_memory_format(encoder, trained.config.trainer.channels_last, sharded=False)
    return replace(trained, encoder=encoder.eval(), network=RANDOM)


def require_stages(trained: Trained) -> None:
    """Raises TrainerError for an encoder without stages."""
    split_stages(trained.encoder, trained.preprocess.channels, encoder_name(trained))


def detect_with(trained: Trained, pictures: Pictures, settings: DetectSettings) -> dict[str, Any]:
    """Trains a detector on the encoder, scores it and writes the file, of which the content is returned.

    With `resume=auto` a detection of the same options that is finished is taken as it is, and one that was cut off goes on.

    Raises TrainerError for an encoder without stages, before anything is trained.
    """
    name = detection_name(trained, settings)
    seed = exam_seed(trained, settings.seed)
    asked = _asked(trained, settings, seed)
    found = read_evaluations(trained.results_folder).get(name, {}) if settings.resume == "auto" else {}
    if found.items() >= asked.items():
        print(f"{trained.results_folder / name}.json (as it was)", flush=True)
        return found
    start = time.monotonic()
    resolved = complete(settings)
    device = find_device(settings.device)
    encoder = trained.encoder.to(device)
    preprocess, whose = trained.preprocess, encoder_name(trained)
    classes = pictures.train.classes
    detector = build_detector(encoder, preprocess, len(classes), resolved, seed, whose)
    batches = Batches(pictures.train, resolved, preprocess.channels, seed, device)
    resume = settings.resume == "auto"
    checkpoint = Checkpoint(trained.results_folder / f"{name}.ckpt", settings.checkpoint_every, resume, asked)
    losses = train(detector, batches, resolved, checkpoint)
    take_statistics(detector, batches, len(losses), resolved.norm_batches)
    precision = average_precision(predict(detector, pictures.test, preprocess.channels), pictures.test.truths, classes)
    content = {
        **asked,
        "steps": len(losses),
        "train_images": len(pictures.train),
        "test_images": len(pictures.test),
        "ap": precision.ap,
        "ap50": precision.ap50,
        "ap75": precision.ap75,
        "per_class": {each: asdict(found) for each, found in precision.per_class.items()},
        "losses": loss_rows(losses),
        "seconds": time.monotonic() - start,
        "machine": describe_machine(),
    }
    write_evaluated(trained, name, content)
    checkpoint.path.unlink(missing_ok=True)
    return content


def complete(settings: DetectSettings) -> DetectSettings:
    """With the steps and milestones of the detector's protocol where none are given."""
    protocol = KINDS[settings.detector][1]
    return replace(
        settings,
        steps=settings.steps or protocol.steps,
        milestones=list(protocol.milestones) if settings.milestones is None else settings.milestones,
    )


def detection_name(trained: Trained, settings: DetectSettings) -> str:
    """Of the file: the detector, then all that differs from what it would be without a word.

    `detection-c4`, `detection-fpn-steps200-short_side96-random`.
    """
    parts = [f"detection-{settings.detector}"]
    parts += [f"{key}{spell(value)}" for key, value in _given(settings).items()]
    if trained.config is not None and trained.network != trained.config.evaluation.network:
        parts.append(str(trained.network))
    if exam_seed(trained, settings.seed) != exam_seed(trained, None):
        parts.append(f"seed{settings.seed}")
    return file_name("-".join(parts))


def encoder_name(trained: Trained) -> str:
    """By which an error names the network."""
    if trained.config is None:
        return f"{trained.path}: {type(trained.encoder).__name__}"
    backbone = trained.config.backbone
    return f"{trained.path}: {backbone.name}{f' {backbone.model}' if 'model' in backbone else ''}"


def loss_rows(losses: Tensor) -> dict[str, list[float]]:
    """The mean of each loss over the steps up to `step`, from the row before; at most LOSS_ROWS of them."""
    every = -(-len(losses) // LOSS_ROWS)
    parts = losses.split(every)
    ends = [min((place + 1) * every, len(losses)) for place in range(len(parts))]
    means = torch.stack([part.mean(0) for part in parts])
    return {"step": ends, **{name: means[:, column].tolist() for column, name in enumerate(LOSSES)}}


def _asked(trained: Trained, settings: DetectSettings, seed: int) -> dict[str, Any]:
    """All that decides the result."""
    options = asdict(complete(settings))
    of_the_detector = {field.name for field in fields(DetectorSettings)} - {"detector", "seed"}
    return {
        "protocol": "detection",
        "detector": settings.detector,
        "options": {key: value for key, value in options.items() if key in of_the_detector},
        "root": str(Path(settings.root).expanduser().resolve()),
        "train": settings.train,
        "test": settings.test,
        "classes": settings.classes,
        "network": trained.network,
        "step": trained.step,
        "encoder_digest": trained.digest,
        "seed": seed,
    }


def _given(settings: DetectSettings) -> dict[str, Any]:
    """The options that are not at their defaults and can change a result."""
    named = {field.name for field in fields(DetectorSettings)} - {"detector", "seed"} | {"train", "test", "classes"}
    given = {}
    for field in fields(settings):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(settings, field.name)
        if field.name in named and value != default:
            given[field.name] = value
    return given


def read_pictures(settings: DetectSettings) -> Pictures:
    """Raises TrainerError for sets that are not there, and for fewer training pictures than a step has."""
    train, test = (read_voc(settings.root, _sets(names), settings.classes) for names in (settings.train, settings.test))
    if len(train) < settings.batch_size:
        raise TrainerError(
            f"batch_size={settings.batch_size} is more than the {len(train)} training pictures: give less."
        )
    return Pictures(train, test)


def _sets(names: Sequence[str]) -> list[tuple[str, str]]:
    sets = [tuple(name.split("/")) for name in names]
    if any(len(each) != 2 for each in sets):
        raise TrainerError(f"{','.join(names)}: name sets as YEAR/SET, such as 2007/trainval.")
    return [(year.removeprefix("VOC"), name) for year, name in sets]


def shown(trained: Trained, content: dict[str, Any]) -> dict[str, Any]:
    """The content, and what reports call its encoder: label and settings of its run."""
    record = record_of(trained)
    label, settings = record.label, record.results["settings"]
    if trained.network == RANDOM:
        label = f"random weights, seed={content['seed']}"
        settings = {key: value for key, value in settings.items() if key.startswith("backbone.")}
        settings |= {"encoder": RANDOM, "seed": content["seed"]}
    return {**content, "label": label, "settings": settings}
