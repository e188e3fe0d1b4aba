"""`init=RUN|FILE|pretrained`: the weights that an encoder begins with, read before it is built and found to fit after.

What a run began with is a part of what it is, by the weights themselves: `init_sha256` notes their hash, wherever they
lay. A checkpoint holds all weights, so that a run goes on also where its start is gone.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..config import differing, flattened, plain, read_config
from ..distributed.processes import Ranks
from ..engine.checkpoints import checkpoint_files
from ..errors import TrainerError, Unavailable
from ..export import PICKLES, description_in, read_encoder, wrapping
from .folders import newest_run

PRETRAINED = "pretrained"
HEADS = ("fc.", "classifier.", "head.", "heads.", "head_dist.", "last_linear.")  # classifiers of timm and torchvision
LISTED = 3  # names of weights in an error


@dataclass(frozen=True)
class Start:
    """Weights by the names of the encoder's network."""

    origin: str  # where they come from, for people
    weights: dict[str, Tensor] = field(repr=False)
    backbone: dict[str, Any] | None = None  # the options of their network, where they are known

    def digest(self) -> str:
        """SHA-256 of names, dtypes, shapes and values."""
        hashed = hashlib.sha256()
        for name, weight in sorted(self.weights.items()):
            hashed.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
            hashed.update(weight.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return hashed.hexdigest()

    def describe(self, encoder: nn.Module) -> str:
        """One line on what was loaded, and what was not."""
        own = _own(encoder)
        left_out = [name for name in self.weights if name not in own]
        count = sum(weight.numel() for weight in encoder.parameters())  # not of statistics, as `export` counts
        line = f"The encoder starts from {self.origin}: {count:,} weights."
        return f"{line} Left out: {_few(left_out)}." if left_out else line


def prepare_start(config: DictConfig, channels: int, ranks: Ranks) -> tuple[DictConfig, Start | None]:
    """The start, the same on every rank, and the configuration that notes its hash. None: random weights, or those of
    the checkpoint of a run that `resume` goes on with, whose start is gone.

    Raises TrainerError for a start that is not there or can't be read, and for other weights than those noted.
    """
    digest, resume, start = ranks.compute_once(lambda: _prepare(config, channels))
    noted = config.copy()
    noted.init_sha256, noted.resume = digest, resume
    return noted, start


def fill(encoder: nn.Module, start: Start, config: DictConfig, channels: int) -> None:
    """Gives the encoder the weights of the start, all of them or none.

    Raises TrainerError for a start of another network: which weights are missing, too many or of another shape.
    """
    own = _own(encoder)
    given = {name: weight for name, weight in start.weights.items() if name in own or not name.startswith(HEADS)}
    if misfits := list(_misfits(own, given)):
        cure = _cure(start, config, own, given, channels)
        raise TrainerError(
            f"init={config.init} does not fit the encoder of backbone={config.backbone.name}. {' '.join(misfits)} {cure}"
        )
    if broken := [name for name, weight in given.items() if not weight.isfinite().all()]:
        raise TrainerError(f"init={config.init} holds weights that are not finite: {_few(broken)}. Give another start.")
    with torch.no_grad():
        for name, weight in given.items():
            own[name].copy_(weight)


def _prepare(config: DictConfig, channels: int) -> tuple[str | None, str | None, Start | None]:
    if config.init is None:
        if config.init_sha256 is not None:
            raise TrainerError(
                "init_sha256 says what a start holds, and there is none: give init too, or init_sha256=null."
            )
        return None, config.resume, None
    try:
        start = _read(config, channels)
    except Unavailable:
        if (noted := _noted(config)) is None:
            raise
        return *noted, None
    digest = start.digest()
    if config.init_sha256 not in (None, digest):
        raise TrainerError(
            f"init={config.init} holds other weights than init_sha256 notes: bring those back, or give init_sha256=null to "
            "start from these."
        )
    return digest, config.resume, start


def _read(config: DictConfig, channels: int) -> Start:
    if config.init == PRETRAINED:
        backbone: Any = OmegaConf.to_object(config.backbone)
        network = backbone.trained_network(channels, config.data.size)
        if network is None:
            raise TrainerError(
                f"init=pretrained: no library has trained weights of backbone={backbone.name} as its options make it. Give "
                "init=RUN or init=FILE, or take resnet18 or resnet50 of width 64, a ViT, timm or torchvision."
            )
        model = getattr(backbone, "model", backbone.name)
        return Start(f"trained weights of {model}", network.state_dict())
    path = Path(config.init).expanduser()
    if path.is_dir():
        files = checkpoint_files(path / "checkpoints")
        if not files:
            raise Unavailable(
                f"init={path} has no checkpoint to start from: give the folder of a run that has trained."
            )
        path = files[0]
    if not path.is_file():
        raise Unavailable(
            f"init={path}: there is no such file. Give a run's folder, a safetensors file, or init=pretrained."
        )
    if path.suffix == ".ckpt" and path.name.startswith("step-"):
        description, weights = read_encoder(path)
        return Start(str(path), weights, description["backbone"])
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> Start:
    with open(path, "rb") as file:
        first = file.read(4)
    if path.suffix != ".safetensors" and (path.suffix in PICKLES or first == b"PK\3\4" or first[:1] == b"\x80"):
        to = path.with_suffix(".safetensors").name
        raise TrainerError(
            f"init={path} is a pickle, which runs code when it is read. Convert it where you trust it, and give the result: "
            f"import torch; from safetensors.torch import save_file; save_file(torch.load('{path.name}', "
            f"weights_only=True), '{to}')."
        )
    try:
        with safe_open(path, "pt") as opened:
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no dict)
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainerError(
            f"init={path} cannot be read ({error}): give a safetensors file or a run's folder."
        ) from None
    description = description_in(metadata)
    return Start(str(path), weights, description.get("backbone"))


def _noted(config: DictConfig) -> tuple[str, str] | None:
    """The hash that the run which `resume` goes on with has noted of the same start, and that run's folder."""
    if config.resume is None:
        return None
    if config.resume != "auto":
        folders = [Path(config.resume).expanduser()]
    else:
        runs = Path(config.runs).expanduser()
        folders = sorted(runs.iterdir(), reverse=True) if runs.is_dir() else []
    for folder in folders:
        digest = _noted_in(folder, config.init)
        if digest is None or config.init_sha256 not in (None, digest):
            continue
        if config.resume != "auto":
            return digest, config.resume
        trial = config.copy()
        trial.init_sha256 = digest
        if (run := newest_run(trial, waiting=lambda: None)) is not None:
            return digest, str(run)
    return None


def _noted_in(folder: Path, init: str) -> str | None:
    if not checkpoint_files(folder / "checkpoints"):
        return None
    try:
        options = read_config(folder / "config.yaml").options
    except TrainerError:  # of something else in the folder of runs
        return None
    return options.get("init_sha256") if options.get("init") == init else None


def _own(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's own weights, by the names of its network."""
    state = encoder.state_dict()
    prefix = wrapping(state)
    return {name.removeprefix(prefix): weight for name, weight in state.items()}


def _misfits(own: dict[str, Tensor], given: dict[str, Tensor]) -> Iterator[str]:
    """Counts of batches, which nothing reads, may be missing: files from before they were kept lack them."""
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    both = [(name, given[name], own[name]) for name in own if name in given]
    shapes = [f"{name}: {_shape(a)} in it and {_shape(b)} here" for name, a, b in both if a.shape != b.shape]
    dtypes = [f"{name}: {a.dtype}" for name, a, b in both if a.is_floating_point() != b.is_floating_point()]
    kinds = {"Missing in it": missing, "Unknown to the encoder": [name for name in given if name not in own]}
    for kind, names in {**kinds, "Of another shape": shapes, "Of another dtype": dtypes}.items():
        if names:
            yield f"{kind}: {len(names)} ({_few(names)})."


def _cure(start: Start, config: DictConfig, own: dict[str, Tensor], given: dict[str, Tensor], channels: int) -> str:
    theirs, ours = flattened({"backbone": start.backbone or {}}), flattened(plain(config))
    if changed := sorted(key for key in differing(ours, theirs) if key in theirs and start.backbone):
        words = [f"{key.removesuffix('.name')}={theirs[key]}" for key in changed]
        return f"Its network has {' '.join(words)}: give these options."
    for name in own:
        here, there = own[name].shape, given.get(name, own[name]).shape
        if len(here) == len(there) == 4 and here[1] == channels != there[1] and here[2:] == there[2:]:
            return f"Its network takes pictures of {there[1]} channels, and the data has {channels}."
    return "Give the backbone, its options and the data.size that it was trained with."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _shape(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "a number"
