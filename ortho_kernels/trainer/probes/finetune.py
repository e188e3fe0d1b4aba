"""Fine-tuning: a copy of the encoder and a classifier are trained together, as Lightly does it."""

import copy
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from ..randomness import preserve_global_generators, seed_globally
from .exam import Exam, Outcome
from .features import extract
from .sgd import SGDProtocol, new_classifier


@dataclass
class FineTuning(SGDProtocol):
    """SGD on the weights of a copy of the encoder and of a classifier on it, along half a cosine, with batch norm in
    training mode. From Lightly: `benchmarks/imagenet/resnet50/finetune_eval.py` (38-43, 49-56)."""

    name: str = "finetune"
    epochs: int = 30
    lr: float = 0.05

    def schedule(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        return CosineAnnealingLR(optimizer, steps)

    def score(self, exam: Exam) -> Outcome:
        encoder = copy.deepcopy(exam.encoder).requires_grad_(True).train()
        network = nn.Sequential(encoder, new_classifier(exam, exam.test_features.features.shape[1]))
        with preserve_global_generators(exam.device):
            seed_globally(exam.seed, "evaluation fine-tuning")  # dropout
            self.train(exam, network, network, lambda epoch: self.crops(exam, epoch))
        test = extract(network, exam.preprocess.view, exam.test, exam.batch_size)
        return self.outcome(exam, test.features, test.labels)
