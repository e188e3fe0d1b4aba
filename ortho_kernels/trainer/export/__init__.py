"""Encoders that leave the trainer: a safetensors file, or a folder that Hugging Face's transformers loads.

from ortho_kernels.trainer.export import load_encoder, load_preprocess

encoder, preprocess = load_encoder("encoder.safetensors"), load_preprocess("encoder.safetensors")
"""

from .checkpoint import read_encoder, wrapping
from .encoder_file import PICKLES, description_in, export_encoder, load_encoder, load_preprocess
from .huggingface import export_huggingface

__all__ = [
    "PICKLES",
    "description_in",
    "export_encoder",
    "export_huggingface",
    "load_encoder",
    "load_preprocess",
    "read_encoder",
    "wrapping",
]
