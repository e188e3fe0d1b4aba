"""The stages of a network: where the resolution of a ResNet changes, and quarters of a transformer's blocks."""

import re
from collections.abc import Sequence

from torch import nn

from .weights import matrices_of

NUMBERED = re.compile(r"(?:layer|stage|s)\d+")  # ResNets of torchvision and timm, this package's, RegNets
CONTAINERS = ("blocks", "stages", "layers", "layer", "h")  # ViTs, ConvNeXts, torch's and transformers' transformers
SHORTCUTS = ("downsample", "shortcut", "skip")
MOST = 4


def find_stages(network: nn.Module) -> list[str]:
    """The names of the modules whose outputs are the stages', in order.

    These are `layer1` to `layer4` of ResNets, `stage1` to `stage3` of wide ones, and the last block of each quarter of a
    transformer's blocks (each block where there are fewer than four). What wraps a network does not matter.

    Raises:
        ValueError: for a network of another form; give names of its modules instead.
    """
    found = stages_if_known(network)
    if not found:
        names = [name for name, module in network.named_children()]
        raise ValueError(
            f"no stages are known of {type(network).__name__}; give names of modules, of named_modules(), whose outputs "
            f"are to be seen, such as {', '.join(map(repr, names[:3])) or 'those of its parts'}"
        )
    return found


def stages_if_known(network: nn.Module) -> list[str]:
    """As `find_stages`, and empty for a network of another form."""
    parents = sorted(network.named_modules(), key=lambda item: item[0].count(".") + bool(item[0]))  # outer ones first
    for path, parent in parents:
        if getattr(parent, "output_fmt", "") == "NHWC":  # timm's Swins: their maps would be read the wrong way
            return []
        prefix = f"{path}." if path else ""
        numbered = [name for name, _ in parent.named_children() if NUMBERED.fullmatch(name)]
        if len(numbered) > 1:
            return [prefix + name for name in numbered]
        for name in CONTAINERS:
            blocks = getattr(parent, name, None)
            if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 1:
                return [f"{prefix}{name}.{block}" for block in _last_of_quarters([*dict(blocks.named_children())])]
    return []


def last_layers(network: nn.Module, stages: Sequence[str]) -> list[str]:
    """The last convolution or linear layer of each stage: the name of its weight. Shortcuts do not count."""
    last = {}
    names = matrices_of(network)  # of the whole network, since a weight that stages share has one name
    for stage in stages:
        network.get_submodule(stage)  # raises AttributeError for a name that is no module's
        for name in names:
            inner = name.removeprefix(f"{stage}.")
            if inner != name and not any(part in SHORTCUTS for part in inner.split(".")):
                last[stage] = name
    return list(last.values())


def _last_of_quarters(blocks: list[str]) -> list[str]:
    count = min(MOST, len(blocks))
    return [blocks[len(blocks) * (quarter + 1) // count - 1] for quarter in range(count)]
