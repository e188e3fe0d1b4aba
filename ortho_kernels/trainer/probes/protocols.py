"""How a trained encoder is scored: protocols, whose options are their fields. A new one is a file and a line here."""

from ..registry import Registry
from .exam import Exam, Outcome, Protocol
from .finetune import FineTuning
from .knn import KNN
from .linear import Linear
from .logistic import Logistic

PROTOCOLS: Registry[Protocol] = Registry(
    "protocol",
    Protocol,
    "ortho_kernels.protocols",
    {"knn": KNN, "logistic": Logistic, "linear": Linear, "finetune": FineTuning},
)

__all__ = ["PROTOCOLS", "Exam", "Outcome", "Protocol"]
