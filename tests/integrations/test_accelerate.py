"""The lines for Accelerate that its page shows, against the loop written out."""

import os

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from llama_training import (
    BATCH,
    GAMMA,
    LENGTH,
    RATE,
    STEPS,
    Formula,
    assert_close,
    examples,
    language_model,
    linear_weights,
    train,
    trained,
)
from ranks import on_ranks
from torch.utils.data import DataLoader

from ortho_kernels import CosineSchedule, OrthogonalityPenalty

KINDS = ("so", "srip")


@pytest.fixture(autouse=True)
def _one_precision_a_process():
    yield
    AcceleratorState._reset_state(True)


class Run:
    """A training with Accelerate, which can be saved and gone on with."""

    def __init__(self, kind, *, accumulation=1, clip=0.0, precision="no", scaler=None, count=1, **options):
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation, mixed_precision=precision)
        if scaler is not None:  # it makes none on a CPU, but works with one
            self.accelerator.scaler, self.accelerator.native_amp = scaler, True
        model = language_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
        rows = DataLoader(examples(STEPS * accumulation * BATCH), batch_size=BATCH // count)
        self.model, self.optimizer, self.rows = self.accelerator.prepare(model, optimizer, rows)
        self.penalty = OrthogonalityPenalty(self.model, kind, **{"gamma": GAMMA[kind], **options})
        self.accelerator.register_for_checkpointing(self.penalty)
        self.clip, self.items = clip, BATCH // count * (LENGTH - 1)

    def train(self, first=0, last=None):
        for batch in list(self.rows)[first:last]:
            with self.accelerator.accumulate(self.model):
                loss = self.model(**batch, num_items_in_batch=self.items).loss
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    if self.clip:
                        self.accelerator.clip_grad_norm_(self.model.parameters(), self.clip)
                        self.penalty.accumulate_gradients()
                    else:
                        self.penalty.accumulate_gradients(scaler=self.accelerator.scaler)
                self.optimizer.step()
                self.optimizer.zero_grad()
        return self


CASES = {
    "plain": {},
    "accumulation": {"accumulation": 2},
    "clipping": {"clip": 0.5},
    "bf16": {"precision": "bf16", "clip": 0.5},
    "fp16": {"precision": "fp16", "scale": 2.0**10, "accumulation": 2, "clip": 0.5},
    "fp16, overflow": {"precision": "fp16", "scale": 2.0**22},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_accelerate_does_as_the_loop(case, kind):
    options = dict(CASES[case])
    scale = options.pop("scale", None)
    scalers = [None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale) for _ in range(2)]
    run = Run(kind, scaler=scalers[0], **options).train()
    truth = language_model()
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.pop("precision", "no"))
    # In 16 bit, a last digit may turn a rounding, and that all later ones: the package's own digits are taken there.
    penalty = (
        OrthogonalityPenalty(truth, kind, gamma=GAMMA[kind])
        if dtype
        else Formula(linear_weights(truth), kind, GAMMA[kind])
    )
    train(truth, penalty, dtype=dtype, scaler=scalers[1], **options)
    assert_close(run.model, truth)
    if scale:
        assert (scalers[0].get_scale() < scale) == ("overflow" in case)


def test_its_fp16_on_a_cpu_is_float32():
    run = Run("so", precision="fp16")
    assert run.accelerator.scaler is None
    assert_close(run.train().model, trained("so"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_loaded_goes_on_where_it_was_saved(kind, tmp_path):
    options = {"gamma": CosineSchedule(GAMMA[kind], 0.0, STEPS)} | ({"warm_start": True} if kind == "srip" else {})
    half = STEPS // 2
    through = Run(kind, **options).train(last=half)
    through.accelerator.save_state(str(tmp_path))
    through.train(first=half)
    resumed = Run(kind, **options)
    resumed.accelerator.load_state(str(tmp_path))
    assert_close(resumed.train(first=half).model, through.model, tolerance=0)


def part_of(rank, count):
    """For each kind, the weights after a run on each rank, which has a part of each batch."""
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count), MASTER_ADDR="-"
    )
    return [weight.detach() for kind in KINDS for weight in Run(kind, count=count).train().model.parameters()]


def test_two_processes(tmp_path):
    ranks = on_ranks(2, tmp_path, part_of, 2)
    truth = [weight for kind in KINDS for weight in trained(kind).parameters()]
    for left, right, expected in zip(*ranks, truth, strict=True):
        assert torch.equal(left, right)
        assert (left - expected).norm() <= 1e-5 * expected.norm()
