"""What the protocols share that train by SGD on crops: linear evaluation, and fine-tuning."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ..data.crops import draw_crops
from ..data.view_settings import View, ViewSettings
from ..errors import TrainerError
from ..options import at_least, between, more_than, option
from ..randomness import generator_for, host_generator_for, preserve_global_generators, seed_globally
from .exam import Exam, Outcome, Protocol
from .progress_lines import with_progress

Batch = tuple[Tensor, Tensor]  # inputs and labels


@dataclass
class SGDProtocol(Protocol):
    """SGD with momentum, without weight decay, on random crops that may be mirrored."""

    epochs: int = option(100, "passes over the training pictures", at_least(1))
    lr: float = option(0.1, "learning rate at 256 pictures a step", more_than(0))
    batch_size: int = option(256, "pictures of a step", at_least(2))
    momentum: float = option(0.9, "momentum of the gradients", between(0, 1))
    min_area: float = option(0.08, "least share of the picture that a crop covers", more_than(0, at_most=1))
    flip: float = option(0.5, "probability that a crop is mirrored; 0 for characters", between(0, 1))

    @abstractmethod
    def schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
        """Of the learning rate, which moves after each of so many steps."""

    def train(
        self,
        exam: Exam,
        trained: nn.Module,
        scores: Callable[[Tensor], Tensor],
        batches: Callable[[int], Iterable[Batch]],
    ) -> None:
        """Minimizes the cross-entropy of `scores(inputs)` over the batches of each epoch, which a number tells apart.

        Raises TrainerError where the loss is not finite.
        """
        rate = self.lr * self.batch_size / 256
        optimizer = torch.optim.SGD(trained.parameters(), lr=rate, momentum=self.momentum)
        schedule = self.schedule(optimizer, self.epochs * max(1, len(exam.train) // self.batch_size))
        label = f"epochs of {self.name}" if exam.progress else None
        for epoch in with_progress(range(self.epochs), self.epochs, label):
            for inputs, labels in batches(epoch):
                loss = F.cross_entropy(scores(inputs), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            self._require_finite(loss.detach(), f"the loss is {loss.item()} after {epoch + 1} epochs")

    def outcome(self, exam: Exam, scores: Tensor, labels: Tensor) -> Outcome:
        """Of the test pictures. Raises TrainerError for scores that are not finite, as after a last step too far."""
        self._require_finite(scores, "the scores of test pictures are NaN or infinite")
        return Outcome.of(scores, labels, len(exam.train_features.labels))

    def _require_finite(self, values: Tensor, found: str) -> None:
        if not values.isfinite().all():
            raise TrainerError(f"protocol={self.name}: {found}. Give a smaller rate than {self.name}.lr={self.lr:g}.")

    def crops(self, exam: Exam, epoch: int) -> Iterator[Batch]:
        """Of the training pictures, in the epoch's order, as the encoder takes them."""
        settings = ViewSettings(min_area=self.min_area, flip=self.flip)
        plan = [View(exam.preprocess.size, settings)]
        generator = host_generator_for(exam.seed, f"evaluation crops {self.name}", epoch)
        for indices in self.order(len(exam.train), exam.seed, epoch):
            draws = draw_crops(plan, len(indices), generator)
            pixels, readable = exam.train.read(indices)
            if not len(pixels):
                continue
            boxes = draws.boxes(np.tile(pixels.shape[-2:], (len(indices), 1)))
            kept = readable.numpy()
            images = exam.preprocess.crops(pixels.to(exam.device), boxes[kept], draws.flips[kept])
            yield images, exam.train.labels[indices[readable]].to(exam.device)

    def order(self, images: int, seed: int, epoch: int) -> list[Tensor]:
        """The places of each batch among so many pictures. What is left after the last whole batch is left out."""
        generator = generator_for("cpu", seed, f"evaluation order {self.name}", epoch)
        batches = torch.randperm(images, generator=generator).split(self.batch_size)
        return list(batches[: max(1, images // self.batch_size)])


def new_classifier(exam: Exam, features: int) -> nn.Linear:
    """From features to classes, on the exam's device; its first weights are a function of the exam's seed."""
    with preserve_global_generators(exam.device):
        seed_globally(exam.seed, "evaluation classifier")
        return nn.Linear(features, len(exam.classes)).to(exam.device)
