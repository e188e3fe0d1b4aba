"""The options of a run: `key=value` words put together, checked, and named by their fingerprint."""

from .composition import combinations, load_config
from .evaluation_data import evaluation_source
from .groups import GROUPS, Settings, SweepSettings, option_groups
from .identity import NOT_PART_OF_A_RUN, differences, fingerprint, flattened, identity, part_of_a_run, plain

__all__ = [
    "GROUPS",
    "NOT_PART_OF_A_RUN",
    "Settings",
    "SweepSettings",
    "combinations",
    "differences",
    "evaluation_source",
    "fingerprint",
    "flattened",
    "identity",
    "load_config",
    "option_groups",
    "part_of_a_run",
    "plain",
]
