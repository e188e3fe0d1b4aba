"""Runs whose steps between two rows of figures are watched for waits."""

from functools import partial

from bare_runs import train
from lightning.pytorch import Callback
from tiny import tiny_words
from waits import Waits

from ortho_kernels.trainer.config import load_config

# Steps 1, 4 and 5 write a row; nobody asks for a figure of steps 2 and 3.
STEPS = ["trainer.max_steps=5", "trainer.log_every=4", "penalty.gamma=1e-3", "trainer.tensorboard=false"]


class Between(Callback):
    """Calls one function before step 2 and another after step 3: what other callbacks do lies between."""

    def __init__(self, start, stop):
        self.start, self.stop = start, stop
        self.batches = 0

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 1 and self.batches == 0:
            self.start()
        if trainer.global_step == 3 and self.batches:
            self.stop()
            self.batches = 0
        elif trainer.global_step in (1, 2):
            self.batches += 1


def config_of(folder, words):
    return load_config([*tiny_words(*words), *STEPS, *words, f"runs={folder / 'runs'}"])


def train_watched(ranks, config):
    """The folder of the run, and the waits of its steps 2 and 3."""
    waits = Waits()
    watch = Between(waits.__enter__, partial(waits.__exit__, None, None, None))
    return train(ranks, config, [watch]), waits.seen
