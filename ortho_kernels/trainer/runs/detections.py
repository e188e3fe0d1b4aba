"""Detection with a trained encoder: a detector is built on it, trained, and scored; a file says what came out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from ..backbones import build_encoder
from ..detection.average_precision import average_precision, require_scorable
from ..detection.batches import Batches
from ..detection.checkpoint import Checkpoint
from ..detection.networks import build_detector, complete
from ..detection.scoring import predict
from ..detection.settings import RANDOM, DetectSettings
from ..detection.stages import split_stages
from ..detection.training import take_statistics, train
from ..detection.voc import VOC, read_voc
from ..engine.memory_format import apply_memory_format
from ..errors import TrainerError, writing
from ..randomness import preserve_global_generators, seed_globally
from ..report.evaluated import read_evaluations
from .detection_files import asked_of, detection_name, outcome_of
from .evaluation_files import write_evaluated
from .exams import exam_seed, find_device
from .folders import try_writing
from .trained import Trained


@dataclass(frozen=True)
class Pictures:
    train: VOC
    test: VOC


def read_pictures(settings: DetectSettings) -> Pictures:
    """Raises TrainerError for sets that are not there, fewer training pictures than a step has, and test pictures that
    can't be scored."""
    if settings.root is None:
        raise TrainerError("root is missing: give the folder that holds VOCdevkit, as root=FOLDER.")
    root = settings.root
    train, test = (read_voc(root, _sets(names), settings.classes) for names in (settings.train, settings.test))
    if len(train) < settings.batch_size:
        raise TrainerError(
            f"batch_size={settings.batch_size} is more than the {len(train)} training pictures: give less."
        )
    require_scorable(test.truths)
    if shared := {truth.name for truth in train.truths} & {truth.name for truth in test.truths}:
        print(
            f"Of the test pictures {len(shared)} are trained on: their scores say nothing of other pictures.",
            flush=True,
        )
    return Pictures(train, test)


def _sets(names: Sequence[str]) -> list[tuple[str, str]]:
    sets = [tuple(name.split("/")) for name in names]
    if any(len(each) != 2 for each in sets):
        raise TrainerError(f"{','.join(names)}: name sets as YEAR/SET, such as 2007/trainval.")
    return [(year.removeprefix("VOC"), name) for year, name in sets]


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
    split_stages(trained.encoder, trained.preprocess.channels, trained.preprocess.size, encoder_name(trained))


def require_writable(encoders: Sequence[Trained], page: Path) -> None:
    """Raises TrainerError where results can't be written: a detector may train for a day before them."""
    for folder in dict.fromkeys([*(trained.results_folder for trained in encoders), page.parent]):
        with writing(folder, then="detect again"):
            folder.mkdir(parents=True, exist_ok=True)
            try_writing(folder)


def encoder_name(trained: Trained) -> str:
    """By which an error names the network."""
    if trained.config is None:
        return f"{trained.path}: {type(trained.encoder).__name__}"
    backbone = trained.config.backbone
    return f"{trained.path}: {backbone.name}{f' {backbone.model}' if 'model' in backbone else ''}"


def detect_with(trained: Trained, pictures: Pictures, settings: DetectSettings) -> dict[str, Any]:
    """Trains a detector on the encoder, scores it and writes the file, of which the content is returned.

    With `resume=auto` a detection of the same options that is finished is taken as it is, and one that was cut off goes on.

    Raises TrainerError for an encoder without stages, before anything is trained.
    """
    folder, name, seed = trained.results_folder, detection_name(trained, settings), exam_seed(trained, settings.seed)
    resume, settings = settings.resume == "auto", complete(settings)
    asked = asked_of(trained, settings, seed)
    if resume and (found := read_evaluations(folder).get(name, {})).items() >= asked.items():
        print(f"{folder / name}.json (as it was)", flush=True)
        return found
    checkpoint = Checkpoint(folder / f"{name}.ckpt", settings.checkpoint_every, resume, asked)
    content = {**asked, **_outcome(trained, pictures, settings, seed, checkpoint)}
    write_evaluated(trained, name, content)
    checkpoint.path.unlink(missing_ok=True)
    return content


def _outcome(
    trained: Trained, pictures: Pictures, settings: DetectSettings, seed: int, checkpoint: Checkpoint
) -> dict[str, Any]:
    device = find_device(settings.device)
    preprocess, classes = trained.preprocess, pictures.train.classes
    encoder = trained.encoder.to(device)
    detector = build_detector(encoder, preprocess, len(classes), settings, seed, encoder_name(trained))
    batches = Batches(pictures.train, settings, preprocess.channels, seed, device)
    losses = train(detector, batches, settings, checkpoint)
    take_statistics(detector, batches, len(losses), settings.norm_batches)
    predictions = predict(detector, pictures.test, preprocess.channels)
    precision = average_precision(predictions, pictures.test.truths, classes)
    counts = {"train_images": len(pictures.train), "test_images": len(pictures.test)}
    return {**counts, **outcome_of(losses, predictions, precision), "seconds": checkpoint.seconds}
