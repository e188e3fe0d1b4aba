"""What makes a run the run that it is, and where two runs differ."""

import hashlib
import json
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

# What can't change a run's outcome: its place and name, how much of it is logged and saved, and who does the work.
# All others are part of a run. The batch and the steps decide what is computed. Device, precision, processes, memory
# format and compiler decide how sums are rounded. Where pictures are decoded decides when a broken one is met.
NOT_PART_OF_A_RUN = (
    "gammas",  # penalty.gamma is
    "init",  # init_sha256 is
    "resume",
    "runs",
    "title",
    "note",
    "sweep",
    "evaluation.every",
    "evaluation.sample",
    "trainer.checkpoint_every",
    "trainer.keep_checkpoints",
    "trainer.log_every",
    "trainer.tensorboard",
    "trainer.threads",
    "trainer.timeout",
    "trainer.wandb",
    "trainer.workers",
)


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as nested dicts of what JSON holds, which a checkpoint may hold too: a path becomes a text."""
    return json.loads(json.dumps(OmegaConf.to_container(config, resolve=True, enum_to_str=True), default=str))


def identity(config: DictConfig) -> dict[str, Any]:
    """What makes a run the run that it is."""
    return part_of_a_run(plain(config))


def part_of_a_run(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The nested dicts without the options that decide nothing."""
    return {
        key: part_of_a_run(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in tree.items()
        if f"{prefix}{key}" not in NOT_PART_OF_A_RUN
    }


def fingerprint(config: DictConfig) -> str:
    text = json.dumps(identity(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    """The keys in which two flat configurations differ."""
    return {key for key in ours.keys() | theirs.keys() if ours.get(key, MISSING) != theirs.get(key, MISSING)}


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """The keys in which two configurations differ, as `key: theirs -> ours`."""
    left, right = flattened(theirs), flattened(ours)
    return [f"{key}: {left.get(key, 'absent')} -> {right.get(key, 'absent')}" for key in sorted(differing(left, right))]


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, with dotted keys. An empty dict is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        is_branch = isinstance(value, dict) and value
        flat |= flattened(value, f"{prefix}{key}.") if is_branch else {f"{prefix}{key}": value}
    return flat
