"""Spectra of trained encoders: weights layer by layer, stages, representation.

    python -m ortho_kernels.trainer.spectra RUN [RUN ...] network=teacher fold_batch_norm=true operators=true

A RUN is a finished run's folder, or a file that `export` has written. What is found is printed, and becomes a file in
RUN/evaluations (or FILE.evaluations), which reports read. The run's own spectra.json stays as it is.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ortho_kernels.spectra import NetworkSpectra, weight_spectra

from .config.command_words import runs_and_options
from .data import Images
from .errors import TrainerError
from .options import at_least, one_of, option
from .probes.augmented import Augmentation
from .probes.features import extract, readable
from .probes.spectra import encoder_spectra, pictures_looked_at
from .report.machine import describe_machine
from .runs.evaluation_files import file_name, spell, write_evaluated
from .runs.exams import exam_seed, find_device, load_pictures, own_data
from .runs.pretrain import planned_views
from .runs.trained import Trained, load_trained, require_trained

IMAGES = 10_000  # of a file, which knows of no run


@dataclass
class SpectraSettings:
    network: str | None = option(
        None,
        "encoder that is looked at; by default the one that the run was judged by",
        one_of("student", "teacher", "ema"),
    )
    data: str | None = option(None, "source of other pictures; by default those that the run was judged by")
    data_options: dict[str, Any] = option({}, "options of that source: {root: FOLDER}")
    images: int | None = option(None, "pictures, drawn by the seed; by default as many as the run took", at_least(2))
    layers: list[str] = option([], "patterns of names of weights or of modules; all by default")
    stages: list[str] = option([], "names of modules; by default those of the network's known stages")
    fold_batch_norm: bool = option(
        False, "scale each filter as the batch norm behind it does: findings may turn around"
    )
    operators: bool = option(False, "measure convolutions as maps of whole pictures too: minutes for large networks")
    seed: int | None = option(None, "draws pictures and views; by default the run's")
    batch_size: int = option(500, "pictures of a batch, where features are computed", at_least(1))
    device: str = option("auto", "where the encoder computes", one_of("auto", "cpu", "gpu", "cuda", "mps"))


NOT_IN_THE_NAME = ("batch_size", "device")  # they change no number beyond rounding


def main(words: Sequence[str]) -> None:
    if (given := runs_and_options(words, __doc__ or "", SpectraSettings)) is None:
        return
    paths, settings = given
    for path in paths:
        require_trained(path)
    for path in paths:
        measure_run(path, settings)


def measure_run(path: Path, settings: SpectraSettings) -> Path:
    """Measures one encoder and prints a table; returns the path of the file that holds all of it."""
    start = time.monotonic()
    trained = load_trained(path, settings.network)
    trained.encoder.to(find_device(settings.device))
    seed = exam_seed(trained, settings.seed)
    images = _pictures(trained, settings, seed)
    try:
        spectra = _measure(trained, images, settings, seed)
    except (TypeError, ValueError) as error:  # names that the network has not, or that can't be measured
        said = str(error).removesuffix(", ...")
        raise TrainerError(f"{path}: {said}.") from None
    content = {
        **spectra.as_dict(),
        "data": settings.data or own_data(trained),
        "data_options": settings.data_options,
        "network": trained.network,
        "images": spectra.representation.samples,
        "seed": seed,
        "step": trained.step,
        "seconds": time.monotonic() - start,
        "machine": describe_machine(),
    }
    print(f"\n{path}\n{spectra}\n")
    return write_evaluated(trained, spectra_name(trained, settings), content)


def spectra_name(trained: Trained, settings: SpectraSettings) -> str:
    """Of the file: `spectra`, then all that differs from what it would be without a word: `spectra-teacher`,
    `spectra-digits`, `spectra-fold_batch_norm`."""
    parts = ["spectra"]
    for option_field in fields(settings):
        key, value = option_field.name, getattr(settings, option_field.name)
        own = {"data": own_data(trained), "network": trained.config and trained.config.evaluation.network}.get(key)
        if key in NOT_IN_THE_NAME or value in (None, False, own, [], {}):
            continue
        if key == "data_options":
            parts += [f"{name}{spell(each)}" for name, each in sorted(value.items())]
        else:
            parts.append(key if value is True else str(value) if key in ("data", "network") else f"{key}{spell(value)}")
    return file_name("-".join(parts))


def _pictures(trained: Trained, settings: SpectraSettings, seed: int) -> Images:
    if settings.data is None and not settings.data_options:
        judged = trained.splits()
    else:
        judged = load_pictures(trained, settings.data, settings.data_options)
    own = IMAGES if trained.config is None else trained.config.evaluation.test_images
    return pictures_looked_at(judged, settings.images or own, seed)


def _measure(trained: Trained, images: Images, settings: SpectraSettings, seed: int) -> NetworkSpectra:
    encoder, preprocess, config = trained.encoder, trained.preprocess, trained.config
    features = extract(encoder, preprocess.view, images, settings.batch_size, progress="features").features
    pixels, _ = next(readable(images, settings.batch_size))
    weights = weight_spectra(
        encoder,
        settings.layers or None,
        images=preprocess.view(pixels[:2]),
        fold_batch_norm=settings.fold_batch_norm,
        operators=settings.operators,
    )
    augmentation = None  # a file does not say how its views were drawn
    if config is not None:
        augmentation = Augmentation(planned_views(config), config.data.get("pipeline"), preprocess, seed)
    return encoder_spectra(
        encoder,
        weights,
        features,
        images,
        preprocess.view,
        seed,
        augmentation,
        stages=settings.stages or None,
        folded=settings.fold_batch_norm,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
