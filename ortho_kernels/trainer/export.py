"""The encoder of a run as a safetensors file, which timm and torchvision load.

    python -m ortho_kernels.trainer.export RUN [encoder.safetensors]

Names and shapes are those of the library that the network comes from. The file's metadata says how to build it, so
`load_encoder(file)` gives that library's own network, where it has one of that form. `load_preprocess(file)` gives the
transform of a picture that belongs to it.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .backbones import BACKBONES, build_backbone, library_network
from .data.preprocess import Preprocess
from .engine.checkpoints import checkpoint_files, read_checkpoint
from .errors import TrainerError, writing

PREFIXES = {"student": "method.encoder.", "teacher": "method.teacher.0."}  # by evaluation.network
# What keeps a library from fetching weights that the file holds, by the backbone's name.
UNTRAINED: dict[str, dict[str, Any]] = {
    "timm": {"pretrained": False, "checkpoint_path": ""},
    "torchvision": {"weights": None},
}
USE = """Use it:

    from PIL import Image
    from ortho_kernels.trainer.export import load_encoder, load_preprocess

    encoder, preprocess = load_encoder("{file}"), load_preprocess("{file}")
    features = encoder(preprocess(Image.open("picture.jpg"))[None])"""


def export_encoder(run: Path, target: Path) -> None:
    """Writes the encoder of the run's newest checkpoint that the run was judged by, whole or not at all."""
    if target.is_dir():
        raise TrainerError(f"{target} is a folder: give the file to write, such as {target / 'encoder.safetensors'}.")
    checkpoints = checkpoint_files(run / "checkpoints")
    if not checkpoints:
        raise TrainerError(f"{run} has no checkpoint to export: give the folder of a run that has trained.")
    config = _run_config(run)
    checkpoint = read_checkpoint(checkpoints[0])
    state = checkpoint["state_dict"]
    prefix = PREFIXES[config.evaluation.get("network", "student")]  # older runs judged the student
    encoder = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    weights = {name.removeprefix("network."): value.contiguous() for name, value in encoder.items()}
    description = {
        "backbone": OmegaConf.to_container(config.backbone, resolve=True),
        "channels": _channels(weights),
        "size": config.data.size,
        "preprocess": checkpoint.get("preprocess"),  # older checkpoints have none
    }
    partial = target.with_suffix(".partial")
    with writing(target, then="export again"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(weights, partial, metadata={"encoder": json.dumps(description)})
        except SafetensorError as error:
            partial.unlink(missing_ok=True)
            raise TrainerError(f"Cannot write {target}: {error}.") from None
        os.replace(partial, target)


def load_encoder(path: str | Path) -> nn.Module:
    """The network in an exported file, in evaluation mode.

    It takes float32 images `(batch, channels, size, size)`, as `load_preprocess(path)` makes them, and returns features
    `(batch, features)`.

    It is timm's or torchvision's own network, without its classifier, where the library has one of that form; a narrow
    ResNet or a wide one is this package's.

    Raises TrainerError for a file that can't be read or that `export` has not written.
    """
    description = _description(path)
    options = description["backbone"]
    settings = BACKBONES[options["name"]].settings(**options)
    if untrained := UNTRAINED.get(options["name"]):
        settings.options = settings.options | untrained
    network = library_network(settings, description["channels"], description["size"])
    if network is None:
        network = build_backbone(settings, description["channels"], description["size"])
    network.load_state_dict(load_file(path))
    return network.eval()


def load_preprocess(path: str | Path) -> Preprocess:
    """The transform with which the exported run was evaluated: a PIL picture to what the encoder takes.

        encoder, preprocess = load_encoder(path), load_preprocess(path)
        features = encoder(preprocess(Image.open("picture.jpg"))[None])

    It suits torchvision's datasets as `transform`, in worker processes too.

    Raises TrainerError as `load_encoder` does, and for a file that lacks the mean and std of its run's data.
    """
    options = _description(path).get("preprocess")
    if options is None:
        raise TrainerError(
            f"{path} lacks the mean and std of the training data: its run is older than this record. Compute them over "
            "the training pictures, as floats in [0, 1], and build ortho_kernels.trainer.preprocess.Preprocess."
        )
    return Preprocess(**options | {"mean": tuple(options["mean"]), "std": tuple(options["std"])})


def _description(path: str | Path) -> dict[str, Any]:
    """What the file's metadata hold about its encoder."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise TrainerError(f"Cannot read {path} ({error}): give a file that `export` has written.") from None
    if "encoder" not in metadata:
        raise TrainerError(f"{path} does not say which network it holds: give a file that `export` has written.")
    return json.loads(metadata["encoder"])


def _run_config(run: Path) -> DictConfig:
    try:
        config = OmegaConf.load(run / "config.yaml")
    except OSError as error:
        raise TrainerError(f"{run} is no run's folder: config.yaml cannot be read ({error.strerror}).") from None
    except yaml.YAMLError as error:
        raise TrainerError(f"{run}/config.yaml cannot be read ({str(error).splitlines()[0]}).") from None
    assert isinstance(config, DictConfig)
    return config


def _channels(weights: dict[str, Tensor]) -> int:
    """Of the images: what the first convolution takes."""
    return next(value.shape[1] for value in weights.values() if value.dim() == 4)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m ortho_kernels.trainer.export",
        description=__doc__.split("\n")[0],
        epilog=USE.format(file="encoder.safetensors"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("target", type=Path, nargs="?", help="the file to write; RUN/encoder.safetensors by default")
    options: Any = parser.parse_args(words)
    target = options.target or options.run / "encoder.safetensors"
    export_encoder(options.run, target)
    network = load_encoder(target)
    kind = f"{type(network).__module__}.{type(network).__name__}"
    print(f"{target}: {kind}, {sum(weight.numel() for weight in network.parameters()):,} weights")
    print(USE.format(file=target))


if __name__ == "__main__":
    main()
