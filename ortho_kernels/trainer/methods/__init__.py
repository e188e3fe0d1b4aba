"""Self-supervised methods, one a file. A new method is a file here and a line in METHODS."""

from ..registry import Registry
from .barlow_twins import BarlowTwins
from .base import BatchPlace, Method, MethodSettings, Output
from .byol import BYOL
from .dcl import DCL
from .dclw import DCLW
from .dino import DINO
from .mae import MAE
from .mocov2plus import MoCoV2Plus
from .mocov3 import MoCoV3
from .nnbyol import NNBYOL
from .nnclr import NNCLR
from .simclr import SimCLR
from .simsiam import SimSiam
from .swav import SwAV
from .vicreg import VICReg

METHODS: Registry[Method] = Registry(
    "method",
    Method,
    "ortho_kernels.methods",
    {
        "barlow_twins": BarlowTwins,
        "byol": BYOL,
        "dcl": DCL,
        "dclw": DCLW,
        "dino": DINO,
        "mae": MAE,
        "mocov2plus": MoCoV2Plus,
        "mocov3": MoCoV3,
        "nnbyol": NNBYOL,
        "nnclr": NNCLR,
        "simclr": SimCLR,
        "simsiam": SimSiam,
        "swav": SwAV,
        "vicreg": VICReg,
    },
)

__all__ = ["METHODS", "BatchPlace", "Method", "MethodSettings", "Output"]
