"""The options of a run: `key=value` words put together, checked, and named by their fingerprint."""

from .composition import combinations, load_config
from .evaluation_data import evaluation_source
from .groups import GROUPS, Settings, SweepSettings, option_groups
from .identity import NOT_PART_OF_A_RUN, differences, differing, fingerprint, flattened, identity, part_of_a_run, plain
from .saved import read_config, write_config

__all__ = [
    "GROUPS",
    "NOT_PART_OF_A_RUN",
    "Settings",
    "SweepSettings",
    "combinations",
    "differences",
    "differing",
    "evaluation_source",
    "fingerprint",
    "flattened",
    "identity",
    "load_config",
    "option_groups",
    "part_of_a_run",
    "plain",
    "read_config",
    "write_config",
]
