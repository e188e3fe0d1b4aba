"""The files of later evaluations: one for each, RUN/evaluations/NAME.json, which reports read."""

import json
from pathlib import Path
from typing import Any

from ..errors import TrainerError, writing
from .atomic_writing import write_atomically

OF_A_SCORE = {"data", "train_images", "test_images"}


def write_evaluation(folder: Path, name: str, content: dict[str, Any]) -> Path:
    """Writes `folder/name.json`, whole or not at all; an earlier one of the same name is replaced."""
    with writing(folder / f"{name}.json", then="evaluate again") as path:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=1) + "\n")
    return path


def read_evaluations(folder: Path) -> dict[str, dict[str, Any]]:
    """Their contents by name, sorted. Raises TrainerError for a file that is no evaluation."""
    contents = {}
    for path in sorted(folder.glob("*.json")):
        try:
            contents[path.stem] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise TrainerError(f"{path} cannot be read ({error}): remove it, and evaluate again.") from None
        if not _is_evaluation(contents[path.stem]):
            raise TrainerError(f"{path} cannot be read (it is no evaluation): remove it, and evaluate again.")
    return contents


def _is_evaluation(content: Any) -> bool:
    """A score comes with what it was found on."""
    return isinstance(content, dict) and ("accuracy" not in content or content.keys() >= OF_A_SCORE)
