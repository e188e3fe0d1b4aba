"""The folder of a propagation: its numbers (JSON, CSV), its figure (SVG) and the page that shows both."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic_writing import write_atomically
from .plots.propagation import picture
from .propagation_page import render
from .propagation_record import as_csv

DIGITS = 6  # of numbers in the file


def write_propagation(folder: Path, content: Mapping[str, Any]) -> Path:
    """Writes propagation.json, .csv, .svg and .html, each whole or not at all; returns the page's path."""
    content = rounded(content)
    texts = {  # all before any is written
        "json": json.dumps(content, indent=1, allow_nan=False) + "\n",
        "csv": as_csv(content),
        "svg": picture(content),
        "html": render(content),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        write_atomically(folder / f"propagation.{suffix}", text)
    return folder / "propagation.html"


def rounded(content: Any) -> Any:
    """The same to DIGITS digits, for JSON, which has no NaN: null stands for it."""
    if isinstance(content, float):
        return float(f"{content:.{DIGITS}g}") if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key: rounded(value) for key, value in content.items()}
    return [rounded(value) for value in content] if isinstance(content, (list, tuple)) else content
