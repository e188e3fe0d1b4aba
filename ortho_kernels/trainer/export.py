"""The encoder of a run as a safetensors file, which timm and torchvision load.

    python -m ortho_kernels.trainer.export RUN [encoder.safetensors]

Names and shapes are those of the library that the network comes from. The file's metadata says how to build it, so
`load_encoder(file)` gives that library's own network, where it has one of that form. `load_preprocess(file)` gives the
transform of a picture that belongs to it.
"""

import argparse
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .backbones import BACKBONES, build_encoder
from .data.preprocess import Preprocess
from .engine.checkpoints import checkpoint_files, read_checkpoint
from .errors import TrainerError, writing

PREFIXES = {"student": "method.encoder.", "teacher": "method.teacher.0.", "ema": "method.ema."}  # by evaluation.network
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
    description, weights = read_encoder(checkpoints[0])
    partial = target.with_suffix(".partial")
    with writing(target, then="export again"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(weights, partial, metadata={"encoder": json.dumps(description)})
        except SafetensorError as error:
            partial.unlink(missing_ok=True)
            raise TrainerError(f"Cannot write {target}: {error}.") from None
        os.replace(partial, target)


def read_encoder(checkpoint: Path, network: str | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """How to build the student, teacher or ema, by default what the run was judged by, and its weights by its names.

    Raises TrainerError for a network that the run does not have.
    """
    content = read_checkpoint(checkpoint)
    try:
        configuration, weights, preprocess = (content[key] for key in ("configuration", "state_dict", "preprocess"))
    except KeyError as error:
        raise TrainerError(f"{checkpoint} is no checkpoint of a run: it holds no {error}.") from None
    network = network or configuration["evaluation"]["network"]
    prefix = PREFIXES[network]
    if not any(name.startswith(prefix) for name in weights):
        whose = "a run without trainer.ema" if network == "ema" else f"method={configuration['method']['name']}"
        raise TrainerError(f"{checkpoint}: {whose} has no {network} to judge here.")
    prefix += wrapping(name.removeprefix(prefix) for name in weights if name.startswith(prefix))
    weights = {
        name.removeprefix(prefix): value.contiguous() for name, value in weights.items() if name.startswith(prefix)
    }
    return {"backbone": configuration["backbone"], "preprocess": preprocess}, weights


def load_encoder(path: str | Path) -> nn.Module:
    """The network in an exported file, in evaluation mode.

    It takes float32 images `(batch, channels, size, size)`, as `load_preprocess(path)` makes them, and returns features
    `(batch, features)`.

    It is timm's or torchvision's own network, without its classifier, where the library has one of that form; a narrow
    ResNet or a wide one is this package's. A backbone of your own is built by its class, whose module is imported;
    no code is in the file.

    Raises TrainerError for a file that can't be read, that `export` has not written, or whose backbone isn't here.
    """
    options, preprocess = _description(path)["backbone"], load_preprocess(path)
    name = options["name"]
    if untrained := UNTRAINED.get(name):
        options["options"] |= untrained
    backbone: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(BACKBONES[name]), options))
    network = backbone.library_network(preprocess.channels, preprocess.size)
    if network is None:
        network = build_encoder(backbone, preprocess.channels, preprocess.size)
    prefix = wrapping(network.state_dict())
    network.load_state_dict({f"{prefix}{name}": value for name, value in load_file(path).items()})
    return network.eval()


def load_preprocess(path: str | Path) -> Preprocess:
    """The transform with which the exported run was evaluated: a PIL picture to what the encoder takes.

        encoder, preprocess = load_encoder(path), load_preprocess(path)
        features = encoder(preprocess(Image.open("picture.jpg"))[None])

    It suits torchvision's datasets as `transform`, in worker processes too.

    Raises TrainerError as `load_encoder` does.
    """
    return Preprocess.from_options(_description(path)["preprocess"])


def _description(path: str | Path) -> dict[str, Any]:
    """What the file's metadata hold about its encoder."""
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


def wrapping(names: Iterable[str]) -> str:
    """What the names of an encoder's weights begin with beyond its network's own: that of `Wrapped`, or nothing."""
    return "network." if all(name.startswith("network.") for name in names) else ""


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
