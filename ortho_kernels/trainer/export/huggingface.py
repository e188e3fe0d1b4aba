"""A folder that `AutoModel` and `AutoImageProcessor` of transformers load, where that library has the network.

    config.json  model.safetensors  preprocessor_config.json  README.md

transformers is not needed to write it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from ..data.preprocess import Preprocess
from ..errors import TrainerError, writing
from .checkpoint import newest_checkpoint, read_encoder
from .conversion import Conversion, NotConvertible, require_same_features
from .encoder_file import build_described, read_description, write_safetensors
from .image_processor import image_processor
from .model_card import model_card
from .training import Score, read_scores
from .transformers_resnet import convert_resnet, is_resnet
from .transformers_vit import convert_vit, is_vit

FILES = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}


def export_huggingface(source: Path, target: Path, network: str | None = None) -> Conversion:
    """Writes the folder, whole or not at all, and returns what is in it; an earlier export is replaced.

    Args:
        source: a run's folder, or a file that `export_encoder` has written.
        network: student, teacher or ema of a run; by default what it was judged by.

    Raises TrainerError where there is no such encoder, where transformers has no such network, and for a target that is
    something else or can't be written.
    """
    target = target.resolve()  # "." has no name, and a link stays one
    _require_place(target)
    description, weights, scores = _read(source, network)
    encoder = build_described(description, weights)
    preprocess = Preprocess.from_options(description["preprocess"])
    try:
        conversion = _convert(encoder, preprocess)
    except NotConvertible as reason:
        raise TrainerError(
            f"{source} cannot become a folder for transformers: {reason}. Leave format=huggingface out: a safetensors file "
            "holds any encoder."
        ) from None
    card = model_card(target.name, conversion.features, preprocess, description.get("training"), scores)
    with writing(target, then="export again"):
        _write(target, conversion, image_processor(preprocess), card)
    return conversion


def _read(source: Path, network: str | None) -> tuple[dict[str, Any], dict[str, Tensor], list[Score]]:
    """How the encoder is built and was trained, its weights, and the scores that are known."""
    if source.is_file():
        if network is not None:
            raise TrainerError(f"network={network}: {source} holds one network; a run's folder has several.")
        return read_description(source), load_file(source), []
    description, weights = read_encoder(newest_checkpoint(source), network)
    return description, weights, read_scores(source, description["training"])


def _convert(encoder: nn.Module, preprocess: Preprocess) -> Conversion:
    """Raises NotConvertible where transformers has no such network."""
    weights, of_pictures = encoder.state_dict(), (preprocess.channels, preprocess.size)
    if is_resnet(weights):
        conversion = convert_resnet(encoder, preprocess.channels)
    elif is_vit(weights):
        conversion = convert_vit(encoder, *of_pictures)
    else:
        raise NotConvertible(
            f"it is a {type(encoder).__name__}, and only a plain ViT and a ResNet with the stem for large images are "
            "written so"
        )
    require_same_features(encoder, conversion, *of_pictures)
    return conversion


def _write(target: Path, conversion: Conversion, processor: dict[str, Any], card: str) -> None:
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_safetensors(partial / "model.safetensors", conversion.weights, {"format": "pt"})
        for name, content in (("config.json", conversion.config), ("preprocessor_config.json", processor)):
            (partial / name).write_text(json.dumps(content, indent=2) + "\n")
        (partial / "README.md").write_text(card)
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_place(target: Path) -> None:
    """Nothing but an earlier export is replaced."""
    if target.is_file() or target.suffix == ".safetensors":
        raise TrainerError(f"{target} names a file: give a folder to write, such as {target.with_suffix('')}.")
    if target.is_dir() and (others := sorted({path.name for path in target.iterdir()} - FILES)):
        raise TrainerError(f"{target} holds something else ({others[0]}): give a new folder, or an earlier export.")
