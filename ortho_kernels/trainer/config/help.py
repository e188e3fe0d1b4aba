"""`--help`: the groups, and every option of the configuration that the words describe."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from ..options import OneOf, Values, option_of
from .composition import load_config
from .groups import option_groups
from .recipes import paper_recipes, recipe_patterns

WIDTH, LEFT = 100, 40  # columns of a line, and of an option's name and value
TYPES: dict[Any, str] = {bool: "true or false", int: "integer", float: "number", str: "text", dict: "map"}

HELP = """\
Self-supervised pretraining with an orthogonality penalty.

  python -m ortho_kernels.trainer [GROUP=NAME ...] [OPTION=VALUE ...]
  python -m ortho_kernels.trainer -m seed=0,1 penalty.gamma=1e-7,1e-6 ...
                                      all combinations, with one table and one report
  python -m ortho_kernels.trainer.compare ...
                                      the run and its baseline, which differ in gamma alone
  Each takes config=FILE: the config.yaml of a run, with the other words over it.

Groups:
{groups}
  A class of your own: method=MODULE:CLASS, and so for data, backbone and penalty.

Options, as these words set them:
{options}

Unless it is given, penalty.gamma is the paper's for the penalty and the backbone. With penalty=none
it is 0. With trainer.accumulate the weights, teachers, queues and centers move once an optimizer
step, as with one large batch. Batch norm does not: it normalizes each batch by itself. Losses that
compare the images of a batch compare those alone.

Examples:
  method=byol data=fashion_mnist penalty=so penalty.gamma=1e-6 backbone=resnet18 backbone.width=16
  method=simclr data=digits backbone=vit_tiny backbone.patch=4 trainer.max_steps=2
  data=imagefolder data.root=FOLDER penalty=srip resume=auto
  -m experiment=paper/cifar100/byol_resnet18 penalty=so penalty.gamma=1e-7,1e-6,1e-5
  -m experiment=paper/cifar100/byol_resnet18 penalty=srip penalty.gamma=1e-5,1e-4,1e-3
"""


def help_text(words: Sequence[str]) -> str:
    groups = option_groups()
    quick = [name for name in groups["experiment"] if name not in paper_recipes()]
    groups["experiment"] = [*quick, *recipe_patterns()]
    listed = [line for name, valid in groups.items() for line in _columns(f"  {name}=", " | ".join(valid), left=14)]
    return HELP.format(groups="\n".join(listed), options="\n".join(option_lines(load_config(words))))


def option_lines(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """The options of this branch, then those of the branches below it, each branch under its name."""
    settings = OmegaConf.get_type(config)
    types = get_type_hints(settings)
    branches = []
    for name in map(str, config):
        value, declared = config[name], option_of(settings, name)
        if isinstance(value, DictConfig) and OmegaConf.get_type(value) is not dict:
            branches.append((f"{prefix}{name}", value))
        elif name != "name":  # which stands above its branch
            about = f"{declared.meaning} ({_accepted(types[name], declared.values)})".lstrip()
            yield from _columns(f"  {prefix}{name}={spell(value)}", about)
    for key, branch in branches:
        yield f"\n{key}" + (f" ({branch.name})" if branch.get("name", key) != key else "")
        yield from option_lines(branch, f"{key}.")


def _columns(first: str, second: str, left: int = LEFT) -> list[str]:
    """The second text in a column from `left` on, beside the first one if that is short enough, else below it."""
    below = [" " * left + line for line in textwrap.wrap(second, WIDTH - left, break_on_hyphens=False)]
    return [first, *below] if len(first) >= left else [first.ljust(left) + below[0].lstrip(), *below[1:]]


def _accepted(kind: Any, values: Values | None) -> str:
    """The type, and the values if not all of it: `number, at least 0, or null`."""
    optional = NoneType in get_args(kind)
    if optional:
        kind = get_args(kind)[0]
    each, text = "", TYPES.get(get_origin(kind) or kind, "any value")
    if isinstance(kind, type) and issubclass(kind, Enum):
        text = f"one of {', '.join(kind.__members__)}"
    if get_origin(kind) is list:
        each, text = "each ", f"list of {TYPES.get(get_args(kind)[0], 'value')}s"
    if values is not None:
        text = str(values) if isinstance(values, OneOf) else f"{text}, {each}{values}"
    return f"{text}, or null" if optional else text


def spell(value: Any) -> str:
    """A value as a word has it; a long text is cut short."""
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    if isinstance(value, list):
        return f"[{','.join(map(spell, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {spell(each)}' for key, each in value.items())}}}"
    if isinstance(value, Enum):
        return value.name
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str) and not re.fullmatch(r"[\w./-]+", value):
        return f"'{textwrap.shorten(value, WIDTH - LEFT, placeholder=' ...')}'"
    return str(value)
