"""State of a method besides its weights moves once an optimizer step, however many batches the step accumulates."""

import pytest
import torch
from lightning.pytorch import Callback
from small_methods import WITH_MEMORY, build, small_heads, views_of
from torch.nn.modules.batchnorm import _BatchNorm

from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.methods.memory import Memory


def state_of(method):
    """The buffers: queues, centers, and what else moves; batch norms take part in eval mode, and keep theirs."""
    return {name: value.clone() for name, value in method.named_buffers()}


def step(name, batches, steps=2, **options):
    """The state after two optimizer steps on 64 pictures each, and the sum of their losses."""
    method = build(name, **options)
    for module in method.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    method.progress = 1.0
    pictures = views_of(method, batch=64 * steps)
    losses = []
    for number in range(steps):
        for batch in range(batches):
            size = 64 // batches
            first = number * 64 + batch * size
            output = method([view[first : first + size] for view in pictures])
            (output.loss / batches).backward()
            losses.append(output.loss.item() / batches)
        method.before_step(number, steps)
        method.after_step(number, steps)
    return state_of(method), sum(losses)


@pytest.mark.parametrize("queue", [{}, {"queue": 64}, {"queue": 150}])
@pytest.mark.parametrize("name", METHODS)
def test_four_batches_of_16_leave_the_state_of_one_of_64(name, queue):
    options = {key: value for key, value in queue.items() if hasattr(METHODS[name].Settings, key)}
    accumulated, _ = step(name, batches=4, **options)
    at_once, _ = step(name, batches=1, **options)
    for key, value in at_once.items():
        torch.testing.assert_close(accumulated[key], value, rtol=0, atol=1e-5, msg=lambda m, key=key: f"{key}: {m}")
    fresh = state_of(build(name, **options))
    moved = [key for key, value in at_once.items() if not torch.equal(value, fresh[key])]
    assert bool(moved) == (name in WITH_MEMORY)


@pytest.mark.parametrize("name", ["dino", "mocov2plus", "nnbyol"])
def test_every_batch_of_a_step_sees_the_state_that_the_step_began_with(name):
    """These losses are means over the pictures of a batch, so that of four batches is that of one."""
    _, accumulated = step(name, batches=4)
    _, at_once = step(name, batches=1)
    assert accumulated == pytest.approx(at_once, rel=1e-5)


def test_the_trainer_ends_every_optimizer_step_once(run_tiny, monkeypatch):
    ended = []
    after_step = METHODS["nnclr"].after_step

    def record(method, step, steps):
        ended.append((step, steps, len(method.queue.collected)))
        after_step(method, step, steps)

    monkeypatch.setattr(METHODS["nnclr"], "after_step", record)
    run_tiny("method=nnclr", "method.queue=64", "trainer.accumulate=3", "trainer.max_steps=4")
    assert ended == [(step, 4, 3) for step in range(4)]


@pytest.mark.parametrize("name", WITH_MEMORY)
def test_nothing_is_left_over_when_a_checkpoint_is_written(run_tiny, name):
    left = []

    class Watch(Callback):
        def on_save_checkpoint(self, trainer, module, checkpoint):
            memories = [memory for memory in module.modules() if isinstance(memory, Memory)]
            left.extend(len(memory.collected) for memory in memories)

    words = [f"method={name}", *small_heads(name), "trainer.accumulate=2", "trainer.checkpoint_every=1"]
    run_tiny(*words, callbacks=[Watch()])
    assert left
    assert not any(left)
