"""Queues and centers, of batches of any size."""

import pytest
import torch

from ortho_kernels.trainer.methods.memory import Center, Queue


def rows(first, count, dim=3):
    """Vectors that say their number."""
    return torch.arange(first, first + count, dtype=torch.float).unsqueeze(1).expand(count, dim)


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 10, 11, 25])
@pytest.mark.parametrize("accumulated", [1, 2, 3])
def test_a_queue_holds_the_last_vectors_whatever_the_batch(batch, accumulated):
    queue, expected = Queue(10, 3), [-1.0] * 10
    queue.vectors.fill_(-1)
    number = 0
    for _ in range(7):
        for _ in range(accumulated):
            queue.collect(rows(number, batch))
            expected += range(number, number + batch)
            number += batch
        held = queue.vectors.clone()
        assert torch.equal(held, queue.vectors), "it moves after the step alone"
        queue.move()
        assert sorted(queue.vectors[:, 0].tolist()) == sorted(expected[-10:])
        assert queue.vectors.roll(-int(queue.oldest), 0)[:, 0].tolist() == expected[-10:], "the oldest come first"


def test_a_queue_starts_with_unit_vectors_and_moves_only_by_what_came():
    queue = Queue(50, 4)
    torch.testing.assert_close(queue.vectors.norm(dim=1), torch.ones(50))
    before = queue.vectors.clone()
    queue.move()
    assert torch.equal(queue.vectors, before)


def test_the_nearest_of_a_queue_has_the_most_similar_direction():
    queue = Queue(40, 5)
    queries = torch.randn(9, 5)
    for query, found in zip(queries, queue.nearest(queries), strict=True):
        cosines = torch.cosine_similarity(query.unsqueeze(0), queue.vectors)
        assert torch.equal(found, queue.vectors[cosines.argmax()])


def test_what_is_collected_holds_no_graph_and_is_no_part_of_a_checkpoint():
    queue = Queue(10, 3)
    keys = set(queue.state_dict())
    queue.collect(torch.ones(2, 3, requires_grad=True) * 2)
    assert not queue.collected[0].requires_grad
    assert set(queue.state_dict()) == keys == {"vectors", "oldest"}


def test_a_center_is_the_moving_average_of_the_mean_of_a_step():
    center, means = Center(3, momentum=0.9), torch.randn(4, 3)
    center.mean.fill_(2)
    for mean in means:
        center.collect(mean)
    center.move()
    torch.testing.assert_close(center.mean, 0.9 * torch.full((3,), 2.0) + 0.1 * means.mean(0))
    assert not center.collected
