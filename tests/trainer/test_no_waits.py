"""Between the steps at which figures are asked for, no training step waits for the device."""

import pytest
from lightning.pytorch import Callback
from waits import Waits

from ortho_kernels.trainer.methods import METHODS

# Steps 1, 4 and 5 write a row: nobody asks for a figure in steps 2 and 3.
STEPS = ["trainer.max_steps=5", "trainer.log_every=4", "penalty.gamma=1e-3"]
HEADS = {"prototypes": 16, "queue": 64, "queue_start": 0.0}


class Arm(Callback):
    """Watches steps 2 and 3 from their first batch to their end, callbacks included."""

    def __init__(self):
        self.waits = Waits()
        self.steps = 0
        self.armed = False

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step in (1, 2) and not self.armed:
            self.armed = True
            self.waits.__enter__()

    def on_before_zero_grad(self, trainer, module, optimizer):
        if self.armed and trainer.fit_loop.epoch_loop.global_step in (1, 2):
            self.steps += 1

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if self.armed and trainer.global_step == 3:
            self.armed = False
            self.waits.__exit__(None, None, None)


def heads(method):
    return [f"method.{key}={value}" for key, value in HEADS.items() if hasattr(METHODS[method].Settings, key)]


def waits_of(run_tiny, *words):
    arm = Arm()
    run_tiny(*STEPS, *words, callbacks=[arm])
    assert arm.steps >= 2
    return arm.waits.seen


@pytest.mark.parametrize("method", METHODS)
def test_a_step_does_not_wait(run_tiny, method):
    assert waits_of(run_tiny, f"method={method}", *heads(method)) == []


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=lars"],
        ["optimizer=adamw"],
        ["penalty=srip"],
        ["penalty=srip", "penalty.warm_start=true"],
        ["penalty=decay"],
        ["penalty=none", "penalty.gamma=0"],
        ["trainer.accumulate=2"],
        ["trainer.precision=bf16-mixed"],
        ["backbone=vit_tiny"],
        ["data.views.solarize=0.5"],
    ],
    ids=" ".join,
)
def test_nor_with_any_option(run_tiny, words):
    assert waits_of(run_tiny, "method=byol", *words) == []
