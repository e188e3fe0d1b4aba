"""A data set of a user's own whose code has a mistake."""

from dataclasses import dataclass

from ortho_kernels.trainer.data import Source, Splits


@dataclass
class Failing(Source):
    size: int = 8

    def load(self) -> Splits:
        raise ValueError("the archive is empty")
