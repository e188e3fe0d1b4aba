"""Logistic regression on frozen features: all of them at once, by L-BFGS, with a decay that held-out pictures choose."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import TrainerError
from ..options import at_least, option
from ..randomness import generator_for
from .exam import Exam, Outcome, Protocol
from .labeled import draw_share
from .progress_lines import with_progress

HELD_OUT = 0.1  # share of the training pictures of each class on which decays are compared


def logistic_regression(features: Tensor, labels: Tensor, classes: int, decay: float) -> "LinearClassifier":
    """The weights that minimize the mean cross-entropy plus `decay / 2` times their squares, of standardized features.

    A convex problem: where the search starts does not matter. scikit-learn's `C` is `1 / (decay * len(features))`. Takes
    `features` `(images, features)` and `labels` `(images,)`, numbers from 0 to `classes - 1`.
    """
    mean, std = features.mean(0), features.std(0).clamp(min=1e-6)
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    standardized = (features - mean) / std
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=1000, tolerance_grad=1e-6, history_size=10, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(standardized, weight, bias), labels) + 0.5 * decay * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    return LinearClassifier(mean, std, weight.detach(), bias.detach())


class LinearClassifier(nn.Module):
    """Features `(images, features)` to scores `(images, classes)`."""

    def __init__(self, mean: Tensor, std: Tensor, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.mean, self.std, self.weight, self.bias = mean, std, weight, bias

    def forward(self, features: Tensor) -> Tensor:
        return F.linear((features - self.mean) / self.std, self.weight, self.bias)


@dataclass
class Logistic(Protocol):
    """Logistic regression on standardized features, by L-BFGS. Of several decays, one is chosen on held-out training
    pictures, with the most right answers there; all training pictures are fitted with it."""

    name: str = "logistic"
    decays: list[float] = option(
        [1e-5, 1e-4, 1e-3, 1e-2, 1e-1], "weight decays to choose from, on training pictures held out", at_least(0)
    )

    def check(self, exam: Exam) -> None:
        super().check(exam)
        self._held_out(exam.train.labels, exam.seed)

    def score(self, exam: Exam) -> Outcome:
        train, test, classes = exam.train_features, exam.test_features, len(exam.classes)
        chosen = self._choose(exam)
        scores = logistic_regression(train.features, train.labels, classes, chosen["decay"])(test.features)
        return Outcome.of(scores, test.labels, len(train.labels), chosen)

    def _choose(self, exam: Exam) -> dict[str, float]:
        """The decay, and if there were several what spoke for it."""
        features, labels, _ = exam.train_features
        held = self._held_out(labels, exam.seed)
        if held is None:
            return {"decay": self.decays[0]}
        scores = {}
        decays = sorted(self.decays, reverse=True)  # of equal scores the strongest decay wins
        for decay in with_progress(decays, len(decays), "decays" if exam.progress else None):
            classifier = logistic_regression(features[~held], labels[~held], len(exam.classes), decay)
            scores[decay] = Outcome.of(classifier(features[held]), labels[held], int((~held).sum())).accuracy
        best = max(scores, key=lambda decay: scores[decay])
        return {"decay": best, "validation_accuracy": scores[best], "validation_images": int(held.sum())}

    def _held_out(self, labels: Tensor, seed: int) -> Tensor | None:
        """Which training pictures `(images,)` decays are compared on; None where one decay is given."""
        if len(self.decays) == 1:
            return None
        repeated = labels.bincount()[labels] > 1  # the only picture of a class is fitted
        if not repeated.any():
            raise TrainerError(
                f"logistic.decays: with one training picture a class there is none to choose among {len(self.decays)} by. "
                "Give one decay (logistic.decays=1e-3) or more labels."
            )
        held = torch.zeros(len(labels), dtype=torch.bool)
        candidates = repeated.nonzero().flatten()
        generator = generator_for("cpu", seed, "evaluation held out")
        held[candidates[draw_share(labels[candidates], HELD_OUT, generator)]] = True
        return held
