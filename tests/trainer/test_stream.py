"""The stream of batches: a permutation every epoch, the same from wherever it is entered."""

import pytest
import torch

from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.stream import BatchStream

PIXELS = torch.arange(10, dtype=torch.uint8)


def stream(batches=9, seed=0):
    return BatchStream(PIXELS, batch_size=3, batches=batches, seed=seed)


def test_an_epoch_shows_no_image_twice():
    batches = [pixels for pixels, _ in stream()]
    for epoch in range(3):
        seen = torch.cat(batches[3 * epoch : 3 * epoch + 3]).tolist()
        assert len(set(seen)) == len(seen) == 9


def test_epochs_and_seeds_differ():
    batches = [pixels.tolist() for pixels, _ in stream()]
    assert batches[:3] != batches[3:6]
    assert batches != [pixels.tolist() for pixels, _ in stream(seed=1)]


@pytest.mark.parametrize("position", range(10))
def test_entered_anywhere_it_goes_on_as_if_it_had_never_stopped(position):
    whole = [(pixels.tolist(), number) for pixels, number in stream()]
    entered = stream()
    entered.load_state_dict({"position": position})
    assert [(pixels.tolist(), number) for pixels, number in entered] == whole[position:]


def test_its_state_is_what_it_has_given_out():
    running = stream()
    batches = iter(running)
    next(batches)
    next(batches)
    assert running.state_dict() == {"position": 2}


@pytest.mark.parametrize(
    ("pixels", "batch_size", "said"),
    [(PIXELS, 11, "larger than the data, which has 10"), (PIXELS[:1], 2, "1 training image:")],
)
def test_batches_that_the_data_cannot_fill_are_refused(pixels, batch_size, said):
    with pytest.raises(TrainerError, match=said):
        BatchStream(pixels, batch_size, batches=1, seed=0)
