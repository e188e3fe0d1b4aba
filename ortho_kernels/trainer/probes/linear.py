"""Linear evaluation: a classifier on the frozen encoder, trained by SGD on crops, as solo-learn does it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR

from ..options import one_of, option
from .exam import Exam, Outcome
from .features import evaluation_mode
from .sgd import Batch, SGDProtocol, new_classifier

DROPS = 0.6, 0.8  # shares of the steps after which the rate is a tenth of what it was


@dataclass
class Linear(SGDProtocol):
    """SGD on features of random crops, 100 epochs, with a tenth of the rate from epochs 60 and 80 on.

    From solo-learn: `scripts/linear/imagenet/byol.yaml` (24-31, 40), `solo/args/linear.py` (168, 174), crops of
    `solo/data/classification_dataloader.py`. With `views=plain` the classifier sees whole pictures, whose features are
    computed once.
    """

    name: str = "linear"
    views: str = option("crops", "what the encoder sees: random crops, or whole pictures", one_of("crops", "plain"))

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        return MultiStepLR(optimizer, [round(drop * steps) for drop in DROPS], gamma=0.1)

    def score(self, exam: Exam) -> Outcome:
        test = exam.test_features
        classifier = new_classifier(exam, test.features.shape[1])
        with evaluation_mode(exam.encoder):
            self.train(exam, classifier, classifier, lambda epoch: self._batches(exam, epoch))
        with torch.no_grad():
            scores = classifier.cpu()(test.features)
        return self.outcome(exam, scores, test.labels)

    def _batches(self, exam: Exam, epoch: int) -> Iterator[Batch]:
        if self.views == "plain":
            features, labels, _ = exam.train_features
            for places in self.order(len(labels), exam.seed, epoch):
                yield features[places].to(exam.device), labels[places].to(exam.device)
            return
        for images, labels in self.crops(exam, epoch):
            with torch.no_grad():
                features = exam.encoder(images).float()
            yield features, labels
