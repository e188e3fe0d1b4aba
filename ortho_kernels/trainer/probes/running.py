"""What an encoder that is still training has learned: kNN and ranks on a small sample, the same one every time."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ortho_kernels.spectra import effective_rank, rankme, representation_eigenvalues

from ..data import Images, Splits
from ..data.views import Views
from ..distributed.processes import Ranks
from ..errors import TrainerError
from ..randomness import generator_for
from .evaluation import EvaluationSettings, accuracy
from .features import readable
from .knn import knn_predict


@dataclass(frozen=True)
class RunningScores:
    """kNN is the share of right answers, NaN without labels; the ranks are those of the queries' features."""

    knn: float
    effective_rank: float
    rankme: float


class RunningProbe:
    """The pictures that are looked at: labeled training pictures vote on test pictures. Without labels there are ranks
    alone, of pretraining pictures. Of several processes each looks at its part."""

    def __init__(self, splits: Splits, settings: EvaluationSettings, seed: int, ranks: Ranks) -> None:
        self.settings = settings
        self.ranks = ranks
        self.classes = len(splits.classes)
        train, test = splits.labeled or (None, splits.pretraining)
        self.bank = None if train is None else self._draw(train, seed, "bank")
        self.queries = self._draw(test, seed, "queries")

    def __call__(self, encoder: nn.Module, views: Views) -> RunningScores:
        """The scores of an encoder in evaluation mode, on the device of the views. All processes call."""
        bank = None if self.bank is None else self._features(encoder, views, self.bank)
        features, labels = self._features(encoder, views, self.queries)
        knn = math.nan
        if bank is not None:
            neighbors, temperature = self.settings.neighbors, self.settings.temperature
            knn = accuracy(knn_predict(*bank, features, self.classes, neighbors, temperature), labels)
        return RunningScores(knn, effective_rank(representation_eigenvalues(features)), rankme(features))

    def _draw(self, images: Images, seed: int, purpose: str) -> Images:
        return images.subset(self.settings.sample, generator_for("cpu", seed, f"running evaluation {purpose}"))

    @torch.no_grad()
    def _features(self, encoder: nn.Module, views: Views, images: Images) -> tuple[Tensor, Tensor]:
        """Of the pictures that can be decoded, and their labels: of all processes together, in one order."""
        mine = images.select(torch.arange(len(images)).tensor_split(self.ranks.count)[self.ranks.rank])
        device = views.mean.device
        batches = [
            (encoder(views.plain(pixels.to(device))).float().cpu(), labels)
            for pixels, labels in readable(mine, self.settings.batch_size)
        ]
        gathered = [batch for part in self.ranks.gather(batches) for batch in part]
        if sum(len(labels) for _, labels in gathered) < 2:
            raise TrainerError(
                f"The evaluation while training drew {len(images)} pictures, and fewer than 2 of them can be decoded. "
                "Replace broken files, or raise evaluation.sample; then resume=auto."
            )
        features, labels = zip(*gathered, strict=True)
        return torch.cat(features), torch.cat(labels)
