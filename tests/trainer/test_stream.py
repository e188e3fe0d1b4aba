"""The stream of batches: a permutation every epoch, the same from wherever it is entered."""

import pytest
import torch

from ortho_kernels.trainer.data import MemoryImages
from ortho_kernels.trainer.data.order import Order
from ortho_kernels.trainer.data.stream import BatchStream
from ortho_kernels.trainer.distributed.processes import ALONE, Ranks
from ortho_kernels.trainer.errors import TrainerError

IMAGES = MemoryImages(torch.arange(10, dtype=torch.uint8), torch.zeros(10))


def stream(batches=9, seed=0, workers=0, ranks=ALONE):
    return BatchStream(IMAGES, Order(len(IMAGES), 3, seed, ranks), batches, workers)


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
    entered.load_state_dict({"position": position, "images": 10})
    assert [(pixels.tolist(), number) for pixels, number in entered] == whole[position:]


def test_a_checkpoint_of_other_data_is_refused():
    """With another number of images the order would be another one, without a word."""
    with pytest.raises(TrainerError, match="comes from 11 training images, but the data has 10 now"):
        stream().load_state_dict({"position": 2, "images": 11})


def test_its_state_is_what_it_has_given_out():
    running = stream()
    batches = iter(running)
    next(batches)
    next(batches)
    assert running.state_dict() == {"position": 2, "images": 10}


@pytest.mark.parametrize(
    ("count", "batch_size", "ranks", "said"),
    [
        (10, 11, 1, "larger than the data, which has 10"),
        (1, 2, 1, "1 training image:"),
        (10, 3, 2, "batch_size=3 can't be shared out over 2 processes"),
    ],
)
def test_batches_that_the_data_cannot_fill_are_refused(count, batch_size, ranks, said):
    images = IMAGES.select(torch.arange(count))
    with pytest.raises(TrainerError, match=said):
        BatchStream(images, Order(count, batch_size, 0, Ranks(0, ranks)), batches=1)


def test_workers_give_the_same_batches_and_the_position_is_what_has_been_taken():
    whole = [(pixels.tolist(), number) for pixels, number in stream()]
    running = stream(workers=2)
    assert [(pixels.tolist(), number) for pixels, number in running] == whole
    entered = stream(workers=1)
    entered.load_state_dict({"position": 4, "images": 10})
    batches = iter(entered)
    assert (lambda pixels, number: (pixels.tolist(), number))(*next(batches)) == whole[4]
    assert entered.state_dict() == {"position": 5, "images": 10}  # however many the worker has ready


def test_processes_share_a_batch():
    images = MemoryImages(torch.arange(12, dtype=torch.uint8), torch.zeros(12))
    whole, *parts = (
        [p.tolist() for p, _ in BatchStream(images, Order(12, 4, 0, ranks), batches=3)]
        for ranks in (ALONE, Ranks(0, 2), Ranks(1, 2))
    )
    assert whole == [first + second for first, second in zip(*parts, strict=True)]
