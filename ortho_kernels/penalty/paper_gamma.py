"""The gamma that the paper's grid search chose (arXiv 2411.00392), by penalty and backbone.

| | ResNet-18 | ResNet-50 | WRN-28-2 | ViT-tiny | ViT-small | ViT-base | others |
|---|---|---|---|---|---|---|---|
| SO | 1e-6 | 1e-6 | 1e-6 | 1e-5 | 1e-5 | 1e-6 | 1e-6 |
| SRIP | 1e-3 | 1e-3 | 1e-4 | 1e-3 | 1e-3 | 1e-3 | 1e-3 |

The paper searches 1e-7, 1e-6, 1e-5 (SO) and 1e-5, 1e-4, 1e-3 (SRIP). What it chose is taken from a public
transcription, `solo/losses/ortho.py` of github.com/zhangjie1234567/solo-learn. That file lists no SRIP on transformers
and no other networks: there it takes 1e-6 (SO) and 1e-3 (SRIP), and so does this one.
"""

import re

DEFAULT_GAMMA = {"so": 1e-6, "srip": 1e-3}
_TUNED_GAMMA = {
    "so": {"resnet18": 1e-6, "resnet50": 1e-6, "wrn28_2": 1e-6, "vit_tiny": 1e-5, "vit_small": 1e-5, "vit_base": 1e-6},
    "srip": {"resnet18": 1e-3, "resnet50": 1e-3, "wrn28_2": 1e-4},
}
# In small letters, without separators and without timm's tag of pretrained weights.
_SPELLINGS = {
    "resnet18": r"resnet18",
    "resnet50": r"resnet50",
    "wrn28_2": r"(wrn|wideresnet)28[xw]?2",
    "vit_tiny": r"vit(tiny|ti)(patch)?\d*",
    "vit_small": r"vit(small|s)(patch)?\d*",
    "vit_base": r"vit(base|b)(patch)?\d*",
}


def paper_gamma(kind: str, backbone: str) -> float:
    """The gamma that the paper uses for a penalty on a backbone; the module's docstring holds the table.

    Args:
        kind: `"so"` or `"srip"`.
        backbone: the network's name: `"resnet18"`, `"wrn28_2"`, `"vit_tiny"`. Other usual spellings count too:
            `"ResNet-18"`, `"WideResNet28x2"`, `"ViT-Ti/16"`, and timm's `"vit_tiny_patch16_224"`.

    Returns:
        The table's number. For a network or a pair that it lacks: 1e-6 (SO) or 1e-3 (SRIP).

    Raises:
        TypeError: for a backbone that is no string.
        ValueError: for an unknown kind.
    """
    if kind not in DEFAULT_GAMMA:
        raise ValueError(f"kind must be one of {', '.join(map(repr, DEFAULT_GAMMA))}; got {kind!r}")
    if not isinstance(backbone, str):
        raise TypeError(f"backbone must be a network's name, as 'resnet18'; got a {type(backbone).__name__}")
    spelled = re.sub(r"[-_/ ]", "", backbone.lower().partition(".")[0])
    for name, pattern in _SPELLINGS.items():
        if re.fullmatch(pattern, spelled):
            return _TUNED_GAMMA[kind].get(name, DEFAULT_GAMMA[kind])
    return DEFAULT_GAMMA[kind]
