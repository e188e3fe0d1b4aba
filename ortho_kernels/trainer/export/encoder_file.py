"""The encoder of a run as a safetensors file, which timm and torchvision load.

Names and shapes are those of the library that the network comes from. The file's metadata says how to build it, so
`load_encoder(file)` gives that library's own network, where it has one of that form. `load_preprocess(file)` gives the
transform of a picture that belongs to it.
"""

import json
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..backbones import BACKBONES, build_encoder
from ..data.preprocess import Preprocess
from ..errors import TrainerError, writing
from .checkpoint import newest_checkpoint, read_encoder, wrapping

PICKLES = {".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"}  # by which timm and others choose how to read
# What keeps a library from fetching weights that the file holds, by the backbone's name.
UNTRAINED: dict[str, dict[str, Any]] = {
    "timm": {"pretrained": False, "checkpoint_path": ""},
    "torchvision": {"weights": None},
}


def export_encoder(run: Path, target: Path, network: str | None = None) -> None:
    """Writes the newest student, teacher or ema of the run, by default what it was judged by, whole or not at all.

    Raises TrainerError for a run without checkpoints, a network that it does not have, and a target that is a
    folder, has the name of a pickle or can't be written.
    """
    if target.is_dir():
        raise TrainerError(f"{target} is a folder: give the file to write, such as {target / 'encoder.safetensors'}.")
    if target.suffix in PICKLES:
        raise TrainerError(f"{target} is the name of a pickle: give one such as {target.with_suffix('.safetensors')}.")
    description, weights = read_encoder(newest_checkpoint(run), network)
    with writing(target, then="export again"):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(target, weights, {"encoder": json.dumps(description)})


def use_lines(file: str) -> str:
    """Python that computes the features of a picture."""
    return f"""from PIL import Image
from ortho_kernels.trainer.export import load_encoder, load_preprocess

encoder, preprocess = load_encoder("{file}"), load_preprocess("{file}")
features = encoder(preprocess(Image.open("picture.jpg"))[None])"""


def write_safetensors(target: Path, weights: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Whole or not at all. Raises TrainerError where the library can't write, and OSError."""
    partial = target.with_suffix(".partial")
    try:
        save_file(weights, partial, metadata=metadata)
    except SafetensorError as error:
        partial.unlink(missing_ok=True)
        raise TrainerError(f"Cannot write {target}: {error}.") from None
    os.replace(partial, target)


def load_encoder(path: str | Path) -> nn.Module:
    """The network in an exported file, in evaluation mode.

    It takes float32 images `(batch, channels, size, size)`, as `load_preprocess(path)` makes them, and returns features
    `(batch, features)`.

    It is timm's or torchvision's own network, without its classifier, where the library has one of that form; a narrow
    ResNet or a wide one is this package's. A backbone of your own is built by its class, whose module is imported;
    no code is in the file.

    Raises TrainerError for a file that can't be read, that `export` has not written, or whose backbone isn't here.
    """
    return build_described(read_description(path), load_file(path))


def load_preprocess(path: str | Path) -> Preprocess:
    """The transform with which the exported run was evaluated: a PIL picture to what the encoder takes.

        encoder, preprocess = load_encoder(path), load_preprocess(path)
        features = encoder(preprocess(Image.open("picture.jpg"))[None])

    It suits torchvision's datasets as `transform`, in worker processes too.

    Raises TrainerError as `load_encoder` does.
    """
    return Preprocess.from_options(read_description(path)["preprocess"])


def build_described(description: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """The library's own network, or ours where it has none, with these weights, in evaluation mode."""
    options, preprocess = description["backbone"], Preprocess.from_options(description["preprocess"])
    name = options["name"]
    if untrained := UNTRAINED.get(name):
        options = options | {"options": options["options"] | untrained}
    backbone: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BACKBONES[name]), options))
    network = backbone.library_network(preprocess.channels, preprocess.size)
    if network is None:
        network = build_encoder(backbone, preprocess.channels, preprocess.size)
    prefix = wrapping(network.state_dict())
    network.load_state_dict({f"{prefix}{name}": value for name, value in weights.items()})
    return network.eval()


def read_description(path: str | Path) -> dict[str, Any]:
    """What the file's metadata hold about its encoder: backbone, preprocess and training, which older files lack.

    Raises TrainerError for a file that can't be read, or that `export` has not written.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainerError(f"Cannot read {path} ({error}): give a file that `export` has written.") from None
    if not (description := description_in(metadata)):
        raise TrainerError(f"{path} does not say which network it holds: give a file that `export` has written.")
    return description


def description_in(metadata: dict[str, str]) -> dict[str, Any]:
    """What `export` has written beside the weights; empty for a file of another origin."""
    return json.loads(metadata.get("encoder", "{}"))
