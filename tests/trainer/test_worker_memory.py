"""What a data worker holds by itself: not the paths of a large data set."""

from pathlib import Path

import pytest
import torch

from ortho_kernels.trainer.data.encoded import EncodedImages
from ortho_kernels.trainer.data.order import Order
from ortho_kernels.trainer.data.picture_sources import ByteStrings, PictureFiles
from ortho_kernels.trainer.data.stream import BatchStream
from ortho_kernels.trainer.randomness import generator_for

MEMORY = Path("/proc/self/smaps_rollup")
IMAGES = 1_300_000


def private_megabytes():
    lines = [line.split() for line in MEMORY.read_text().splitlines()[1:]]
    return sum(int(kilobytes) for name, kilobytes, _ in lines if name in ("Private_Clean:", "Private_Dirty:")) / 1000


class Measured(EncodedImages):
    """Reads names in the place of pictures, and returns how much memory the process holds by itself."""

    def whole(self, indices):
        for index in range(0, len(self), 300):
            assert self.sources.name(index).endswith(f"_{index}.JPEG")
        return torch.full((len(indices),), private_megabytes()), torch.ones(len(indices), dtype=torch.bool)


def images(count):
    """Paths as ImageNet's: 1,000 class folders, names of 14 to 20 characters."""
    names = [f"n{i % 1000:08}/n{i % 1000:08}_{i}.JPEG".encode() for i in range(count)]
    return Measured(PictureFiles.of(b"/data/imagenet/train/", names), torch.zeros(count, dtype=torch.int64), size=8)


@pytest.mark.skipif(not MEMORY.exists(), reason="only Linux says what a process holds by itself")
def test_a_million_paths_add_ten_megabytes_at_most_to_a_worker():
    def held(count):
        """In the second epoch, when there was an order before."""
        order = Order(count, 13, seed=0)
        stream = BatchStream(images(count), order, batches=order.per_epoch + 1, workers=1)
        stream.load_state_dict({"position": order.per_epoch - 1, "images": count})
        return list(stream)[-1][0][0].item()

    assert held(IMAGES) - held(13) < 10


def test_strings_are_read_and_chosen_from_one_buffer():
    strings = ByteStrings.of(b"/root/", [b"a", b"", b"b/c.png", b"\xff"])
    assert [strings[i] for i in range(len(strings))] == [b"/root/a", b"/root/", b"/root/b/c.png", b"/root/\xff"]
    chosen = strings.select(torch.tensor([3, 2]))
    assert [chosen[0], chosen[1]] == [b"/root/\xff", b"/root/b/c.png"]
    assert chosen.buffer.data_ptr() == strings.buffer.data_ptr()


def test_the_order_of_an_epoch_is_as_with_wider_numbers():
    order = Order(10_007, 7, seed=3).epoch(5)
    assert order.dtype == torch.int32
    assert torch.equal(order.long(), torch.randperm(10_007, generator=generator_for("cpu", 3, "order", 5)))
