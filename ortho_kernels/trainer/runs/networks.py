"""The networks of a propagation: those of finished runs, or of backbones with random weights, and what they see."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from ortho_kernels.penalty.warm_start import buffer_name

from ..backbones import BACKBONES, build_encoder
from ..config.check import check
from ..config.evaluation_data import OF_A_COMMAND, source_options
from ..data import SOURCES, Images, Source, Splits, load_splits, require_variance
from ..data.preprocess import Preprocess
from ..data.views import Views
from ..distributed.processes import ALONE
from ..engine.checkpoints import read_checkpoint
from ..errors import TrainerError, did_you_mean
from ..probes.propagation import optimize_, orthogonalize_
from ..randomness import seed_globally
from ..report.record import RunRecord
from .judged import with_channels
from .trained import Trained, load_trained, require_finished


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
        if options:
            raise TrainerError("data_options are those of the source that data names: give data too.")
        data = _the_one_data_set(trained)
        splits = trained[0].splits()
    else:
        splits, _ = load_source(data, options, trained[0].preprocess.decode_size)
    networks = []
    for each, label in zip(trained, _labels(trained), strict=True):
        images = with_channels(splits, each.preprocess.channels, f"data={data}").pretraining
        if images.channels != each.preprocess.channels:  # pictures without labels stay as they are
            raise TrainerError(
                f"data={data} has pictures of {images.channels} channels, and {each.path} takes {each.preprocess.channels}."
            )
        architecture = each.config.backbone.name if each.config else type(each.encoder).__name__.lower()
        networks.append(Network(architecture, label, each.encoder, each.preprocess, images, data, _warm_starts(each)))
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
    seed_globally(seed, "initial weights")
    first = build_encoder(_backbone(backbone, backbone_options), preprocess.channels, source.size).eval()
    for kind in weights:
        encoder = copy.deepcopy(first)
        if kind == "orthogonal":
            orthogonalize_(encoder)
        elif kind == "optimized":
            optimize_(encoder, steps, rate)
        yield Network(backbone, kind, encoder, preprocess, images, source.name)


def load_source(data: str, options: Mapping[str, Any], size: int | None = None) -> tuple[Splits, Source]:
    """Those of a source, with its options, of its own size unless one is given.

    Raises TrainerError for an option that it does not have, and where a size is needed.
    """
    defaults = OmegaConf.structured(SOURCES[data])
    size = options.get("size") or size or (None if OmegaConf.is_missing(defaults, "size") else defaults.size)
    if size is None:
        raise TrainerError(f"data={data} has pictures of any size: give data_options.size=PIXELS.")
    source = cast(Source, OmegaConf.to_object(source_options(data, options, size, size)))
    try:
        return load_splits(source, ALONE), source
    except TrainerError as error:
        raise TrainerError(OF_A_COMMAND.replace_in(str(error), vars(source))) from None


def share_options(backbones: Sequence[str], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each option for the backbones that have it. Raises TrainerError for one that none has."""
    fields = [set(BACKBONES[name].__dataclass_fields__) - {"name"} for name in backbones]
    known = sorted(set().union(*fields))
    if unknown := [key for key in options if key not in known]:
        raise TrainerError(
            f"backbone_options: {', '.join(backbones)} has no option {unknown[0]}.{did_you_mean(unknown[0], known)}"
        )
    return [{key: value for key, value in options.items() if key in own} for own in fields]


def _backbone(name: str, options: Mapping[str, Any]) -> Any:
    try:
        settings = OmegaConf.merge(OmegaConf.structured(BACKBONES[name]), options)
    except OmegaConfBaseException as error:
        raise TrainerError(f"backbone_options: {str(error).splitlines()[0]}") from None
    check(cast(DictConfig, settings), "backbone_options.")
    settings.name = name
    return OmegaConf.to_object(settings)


def _the_one_data_set(trained: Sequence[Trained]) -> str:
    """Its name. Raises TrainerError where there are several, and for files, which know of none."""
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
    return str(_pictures(first.config)["name"])


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


def _warm_starts(trained: Trained) -> dict[str, Tensor]:
    """The vectors that SRIP ended with, where the run kept them; they are of the student's weights."""
    if trained.config is None or trained.network != "student" or not trained.config.penalty.get("warm_start"):
        return {}
    state = read_checkpoint(require_finished(trained.path))["state_dict"]
    names = [name for name, _ in trained.encoder.named_parameters()]
    vectors = {name: state.get(f"penalty.start.{buffer_name(name)}") for name in names}
    return {name: vector for name, vector in vectors.items() if vector is not None}
