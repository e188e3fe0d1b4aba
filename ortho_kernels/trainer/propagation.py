"""`python -m ortho_kernels.trainer.propagation RUN ... key=value ...`: does orthogonality carry from weights to features?

It measures the covariance of features layer by layer, with white inputs, as the paper's proposition 1 assumes, and with
real ones.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import TrainerError, writing
from .options import at_least, more_than, one_of, option
from .probes.propagation import INPUTS, PropagationSettings

if TYPE_CHECKING:
    from .probes.propagation import Inputs
    from .runs.networks import Network

USE = """
python -m ortho_kernels.trainer.propagation RUN [RUN ...] KEY=VALUE ...
python -m ortho_kernels.trainer.propagation backbone=resnet18,vit_tiny data=digits KEY=VALUE ...

The covariance of features, layer by layer. Of finished runs or exported encoders, typically a baseline and runs with a
penalty; or of networks with random weights, and of the same with orthogonal ones. The folder `output` gets
propagation.html, .svg, .json and .csv.
"""
WEIGHTS = ("random", "orthogonal", "optimized")


@dataclass
class Settings(PropagationSettings):
    data: str | None = option(None, "pictures: a data set's name; by default the runs' own, or digits")
    data_options: dict[str, Any] = option({}, "of that data set: {size: 32, root: FOLDER}")
    backbone: list[str] = option([], "in place of runs: networks with random weights, such as resnet18,vit_tiny")
    backbone_options: dict[str, Any] = option({}, "of these networks that have them: {width: 8, depth: 2}")
    weights: list[str] = option(list(WEIGHTS), "of these networks", one_of(*WEIGHTS))
    steps: int = option(5, "of gradient descent on SO, for weights=optimized", at_least(1))
    rate: float = option(
        0.0625, "of these steps; they diverge above 1 / (2 s^2), s the largest singular value", more_than(0)
    )
    network: str | None = option(
        None,
        "of runs: student, teacher or ema; by default the one each was judged by",
        one_of("student", "teacher", "ema"),
    )
    inputs: list[str] = option(
        list(INPUTS), "Gaussian noise, pictures that are whitened, and as they are", one_of(*INPUTS)
    )
    pictures: int = option(1000, "that go through each network", at_least(2))
    whitening: int = option(10_000, "pictures whose covariance whitens; more than a picture has numbers", at_least(2))
    output: str | None = option(None, "folder to write to; runs/propagation-TIME by default")


def main(words: Sequence[str]) -> None:
    from .config.command_words import asks_for_help, parse_words, words_help

    if asks_for_help(words):
        print(words_help(USE, Settings))
        return
    paths, settings = parse_words(words, Settings)
    _check(paths, settings)
    folder = Path(settings.output or f"runs/propagation-{time.strftime('%Y%m%d-%H%M%S')}").expanduser()
    if folder.exists() and not folder.is_dir():
        raise TrainerError(f"output={folder}: that is a file. Give the name of a folder, which may be new.")
    print(f"Report: {propagation(paths, settings, folder)}")


def propagation(paths: Sequence[Path], settings: Settings, folder: Path) -> Path:
    """Measures these runs, or the networks that the settings name, and writes the folder's files; returns the page's path.

    Raises TrainerError before anything is written.
    """
    from .probes.propagation import propagate
    from .report.machine import describe_machine
    from .report.propagation_files import write_propagation
    from .report.propagation_page import summary

    inputs: dict[Any, Inputs] = {}  # networks that see pictures alike share them
    propagations = []
    for network in _networks(paths, settings):
        if network.preprocess not in inputs:
            inputs[network.preprocess] = _inputs(network, settings)
        print(f"{network.architecture}, {network.weights} ...", flush=True)
        propagations.append(
            propagate(
                network.encoder,
                network.architecture,
                network.weights,
                inputs[network.preprocess],
                settings,
                network.warm_starts,
            )
        )
    content = {
        "data": network.data,
        "inputs": [each.facts() for each in inputs.values()],
        "settings": _settings_that_count(paths, settings),
        "networks": [asdict(each) for each in propagations],
        "machine": describe_machine(),
    }
    print(f"\n{summary(content)}\n")
    with writing(folder / "propagation.html", then="run again"):
        return write_propagation(folder, content)


def _check(paths: Sequence[Path], settings: Settings) -> None:
    from .backbones import BACKBONES

    if bool(paths) == bool(settings.backbone):
        raise TrainerError(
            "Give the folders of finished runs, or backbone=resnet18,vit_tiny for networks with random weights"
            f"{', not both' if paths else ''}. --help lists the options."
        )
    for name in settings.backbone:
        BACKBONES[name]  # raises where there is none
    if settings.backbone and settings.network:
        raise TrainerError(
            f"network={settings.network} is of runs: backbone={settings.backbone[0]} has one network alone."
        )
    _refuse_what_does_not_apply(settings)
    for key in ("inputs", "backbone", "weights"):
        if not getattr(settings, key) and (key == "inputs" or settings.backbone):
            raise TrainerError(f"{key} is empty: give one at least.")


def _refuse_what_does_not_apply(settings: Settings) -> None:
    """Options that would change nothing, and were not left as they are."""
    if not settings.backbone:
        keys, needed = ["weights", "backbone_options", "steps", "rate"], "backbone=NAME: runs have weights of their own"
    elif "optimized" not in settings.weights:
        keys, needed = ["steps", "rate"], "weights=optimized"
    else:
        return
    for key in keys:
        if (value := getattr(settings, key)) != getattr(Settings(), key):
            given = ",".join(value) if isinstance(value, list) else value
            raise TrainerError(f"{key}={given} has no effect here: it is an option of {needed}.")


def _networks(paths: Sequence[Path], settings: Settings) -> "Iterator[Network]":
    from .runs.networks import load_source, random_networks, share_options, trained_networks

    if paths:
        yield from trained_networks(paths, settings.network, settings.data, settings.data_options)
        return
    options = share_options(settings.backbone, settings.backbone_options)
    splits, source = load_source(settings.data or "digits", settings.data_options)
    for name, own in zip(settings.backbone, options, strict=True):
        yield from random_networks(
            name, own, settings.weights, splits, source, steps=settings.steps, rate=settings.rate, seed=settings.seed
        )


def _settings_that_count(paths: Sequence[Path], settings: Settings) -> dict[str, Any]:
    """Those on which the numbers depend."""
    unused = {"output", *(("weights", "steps", "rate") if paths else ("network",))}
    return {key: value for key, value in asdict(settings).items() if key not in unused}


def _inputs(network: "Network", settings: Settings) -> "Inputs":
    from .probes.propagation import Inputs

    return Inputs(
        network.images,
        network.preprocess.view,
        list(dict.fromkeys(settings.inputs)),
        settings.pictures,
        settings.whitening,
        settings.seed,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
