"""The encoder of a run as a file for timm and torchvision, or as a folder for Hugging Face's transformers.

    python -m ortho_kernels.trainer.export RUN [encoder.safetensors]
    python -m ortho_kernels.trainer.export RUN [FOLDER] format=huggingface

RUN is a run's folder; for a folder of transformers a file that `export` has written will do too. Without a name the
result lies in the run's folder, as encoder.safetensors or huggingface.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.command_words import runs_and_options
from ..errors import TrainerError
from ..options import one_of, option
from . import encoder_file, export_encoder, export_huggingface, load_encoder, model_card


@dataclass
class ExportSettings:
    format: str = option("safetensors", "what is written: a file, or a folder", one_of("safetensors", "huggingface"))
    network: str | None = option(
        None,
        "encoder that is exported; by default the one that the run was judged by",
        one_of("student", "teacher", "ema"),
    )


def main(words: Sequence[str]) -> None:
    if (given := runs_and_options(words, __doc__ or "", ExportSettings)) is None:
        return
    paths, settings = given
    if len(paths) > 2:
        raise TrainerError(
            f"One encoder is exported at a time, to one target; got {len(paths)} paths: {', '.join(map(str, paths))}."
        )
    source, target = paths[0], paths[1] if len(paths) == 2 else None
    if settings.format == "huggingface":
        _export_folder(source, target or _default_folder(source), settings.network)
    else:
        _export_file(source, target or source / "encoder.safetensors", settings.network)


def _export_file(source: Path, target: Path, network: str | None) -> None:
    export_encoder(source, target, network)
    encoder = load_encoder(target)
    kind = f"{type(encoder).__module__}.{type(encoder).__name__}"
    print(f"{target}: {kind}, {sum(weight.numel() for weight in encoder.parameters()):,} weights")
    _print_use(encoder_file.use_lines(str(target)))


def _export_folder(source: Path, target: Path, network: str | None) -> None:
    written = export_huggingface(source, target, network)
    count = sum(weight.numel() for weight in written.plain.parameters())
    print(f"{target}: transformers' {written.config['architectures'][0]}, {count:,} weights")
    _print_use(model_card.use_lines(str(target), written.config["num_channels"]))


def _default_folder(source: Path) -> Path:
    return source.with_suffix("") if source.is_file() else source / "huggingface"


def _print_use(lines: str) -> None:
    print("Use it:\n\n" + "\n".join(f"    {line}" if line else "" for line in lines.splitlines()))


if __name__ == "__main__":
    main(sys.argv[1:])
