"""The networks of a propagation: those of finished runs, or of backbones with random weights, and what they see."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ortho_kernels.penalty.warm_start import buffer_name

from ..backbones import BACKBONES, build_encoder
from ..config import load_config
from ..config.quoting import quoted
from ..data import Images, Source, Splits, load_splits, require_variance
from ..data.preprocess import Preprocess
from ..data.views import Views
from ..distributed.processes import ALONE
from ..engine.checkpoints import read_checkpoint
from ..errors import TrainerError, did_you_mean
from ..probes.propagation import optimize_, orthogonalize_
from ..randomness import seed_globally
from ..report.record import RunRecord
from .trained import Trained, load_trained, require_finished

WEIGHTS = {
    "random": "those that training begins with",
    "orthogonal": "each weight that the penalty covers replaced by the nearest semi-orthogonal one",
    "optimized": "some steps of gradient descent on SO alone",
}


@dataclass(frozen=True)
class Network:
    """One network to measure."""

    architecture: str  # networks of one architecture are shown in one figure
    weights: str  # what tells it from the others there
    encoder: nn.Module = field(repr=False)
    preprocess: Preprocess
    images: Images = field(repr=False)
    data: str
    warm_starts: Mapping[str, Tensor] = field(default_factory=dict, repr=False)  # by weight; see ResidualNorms.warm


def trained_networks(
    paths: Sequence[Path], which: str | None, data: str | None, options: Mapping[str, Any]
) -> list[Network]:
    """Of finished runs, or of exported files.

    Args:
        which: student, teacher or ema of the runs; by default the one that each was judged by.
        data: the source of the pictures; by default that of the runs.

    Raises TrainerError for runs that have not finished, that were trained on different pictures, and for pictures that an
    encoder can't take.
    """
    trained = [load_trained(path, which) for path in paths]
    if data is None:
        _require_one_data_set(trained)
        splits, data = trained[0].splits(), trained[0].config.data.name if trained[0].config else ""
    else:
        splits, _ = load_pictures(data, {"size": trained[0].preprocess.decode_size, **options})
    networks = []
    for each, label in zip(trained, _labels(trained), strict=True):
        if splits.channels != each.preprocess.channels:
            raise TrainerError(
                f"data={data} has pictures of {splits.channels} channels, and {each.path} takes {each.preprocess.channels}."
            )
        architecture = each.config.backbone.name if each.config else type(each.encoder).__name__.lower()
        networks.append(
            Network(
                architecture, label, each.encoder, each.preprocess, splits.pretraining, data, _warm_starts(each, which)
            )
        )
    return networks


def random_networks(
    backbone: str,
    backbone_options: Mapping[str, Any],
    weights: Sequence[str],
    splits: Splits,
    source: Source,
    *,
    steps: int,
    rate: float,
    seed: int,
) -> Iterator[Network]:
    """One network of a backbone for each of `weights`, made from the same random ones, when it is asked for."""
    images = splits.pretraining
    sample = images.sample()
    require_variance(sample, source.name, getattr(source, "root", None))
    preprocess = Preprocess.of(Views([], source.size, sample, seed))
    config = load_config([f"backbone={backbone}", *as_words("backbone", backbone_options)])
    seed_globally(seed, "initial weights")
    settings: Any = OmegaConf.to_object(config.backbone)
    first = build_encoder(settings, preprocess.channels, source.size).eval()
    for kind in weights:
        encoder = copy.deepcopy(first)
        if kind == "orthogonal":
            orthogonalize_(encoder)
        elif kind == "optimized":
            optimize_(encoder, steps, rate)
        yield Network(backbone, kind, encoder, preprocess, images, source.name)


def load_pictures(data: str, options: Mapping[str, Any]) -> tuple[Splits, Source]:
    """Those of a source, with its options. Raises TrainerError for an option that it does not have."""
    config = load_config([f"data={data}", *as_words("data", options)])
    source = cast(Source, OmegaConf.to_object(config.data))
    return load_splits(source, ALONE), source


def share_options(backbones: Sequence[str], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each option for the backbones that have it. Raises TrainerError for one that none has."""
    fields = [set(BACKBONES[name].__dataclass_fields__) - {"name"} for name in backbones]
    known = sorted(set().union(*fields))
    if unknown := [key for key in options if key not in known]:
        raise TrainerError(
            f"backbone_options: {', '.join(backbones)} has no option {unknown[0]}.{did_you_mean(unknown[0], known)}"
        )
    return [{key: value for key, value in options.items() if key in own} for own in fields]


def as_words(group: str, options: Mapping[str, Any]) -> list[str]:
    """The words of a run that set these options."""
    words = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            words += as_words(f"{group}.{key}", value)
        else:
            words.append(f"{group}.{key}={quoted(value) if isinstance(value, str) else json.dumps(value)}")
    return words


def _require_one_data_set(trained: Sequence[Trained]) -> None:
    for each in trained:
        if each.config is None:
            raise TrainerError(f"{each.path} does not say what it was trained on: name the pictures by data=cifar10.")
    first = trained[0]
    for other in trained[1:]:
        ours, theirs = (_pictures(each.config) for each in (first, other))
        if ours != theirs:
            raise TrainerError(
                f"{first.path} was trained on data={ours['name']} and {other.path} on data={theirs['name']}, or with other "
                "options of it: name the pictures that both are to see by data=NAME."
            )


def _pictures(config: DictConfig | None) -> dict[str, Any]:
    """What decides which pictures a run has, and not how its views are drawn."""
    assert config is not None
    data: Any = OmegaConf.to_container(config.data)
    return {key: value for key, value in data.items() if key not in ("views", "pipeline", "memory_gib")}


def _labels(trained: Sequence[Trained]) -> list[str]:
    """One for each, by which they can be told apart."""
    labels = [each.path.stem if each.config is None else RunRecord.read(each.path).label for each in trained]
    return [
        f"{label} ({each.path.name})" if labels.count(label) > 1 else label
        for label, each in zip(labels, trained, strict=True)
    ]


def _warm_starts(trained: Trained, which: str | None) -> dict[str, Tensor]:
    """The vectors that SRIP ended with, where the run kept them; they are of the student's weights."""
    if trained.config is None or trained.network != "student" or not trained.config.penalty.get("warm_start"):
        return {}
    state = read_checkpoint(require_finished(trained.path))["state_dict"]
    names = [name for name, _ in trained.encoder.named_parameters()]
    vectors = {name: state.get(f"penalty.start.{buffer_name(name)}") for name in names}
    return {name: vector for name, vector in vectors.items() if vector is not None}
