"""AP against a count by hand, and against the definition written out."""

import numpy as np
import pytest
import torch
from torch import tensor
from torchvision.ops import box_iou

from ortho_kernels.trainer.detection.average_precision import average_precision
from ortho_kernels.trainer.detection.voc import Boxes
from ortho_kernels.trainer.errors import TrainerError


def truth(boxes, labels, difficult=None):
    count = len(labels)
    return Boxes(
        tensor(boxes, dtype=torch.float32).view(count, 4),
        tensor(labels),
        tensor(difficult or [False] * count),
        name="made up",
    )


def predicted(boxes, labels, scores):
    return {
        "boxes": tensor(boxes, dtype=torch.float32).view(len(labels), 4),
        "labels": tensor(labels, dtype=torch.int64),
        "scores": tensor(scores, dtype=torch.float32),
    }


def test_a_count_by_hand():
    """Three cats that count, one that does not, and a dog.

    The cats' predictions, from the best score down: right with an IoU of 1; on the difficult cat, so left out; on nothing;
    right with an IoU of 0.62. The third cat is missed. So up to an IoU of 0.6 precision and recall are (1, 1/3), (1/2, 1/3),
    (2/3, 2/3): of the recalls 0, 0.01, ..., 1 the first 34 have a precision of 1, the next 33 of 2/3, all others 0. From
    0.65 on the last prediction is wrong, and 34 recalls have 1. The dog is found exactly.
    """
    truths = [
        truth([[0, 0, 100, 100], [200, 0, 300, 100], [0, 200, 50, 250]], [1, 1, 2], [False, True, False]),
        truth([[0, 0, 100, 100], [400, 400, 500, 500]], [1, 1]),
    ]
    predictions = [
        predicted([[0, 0, 100, 100], [205, 0, 300, 100], [0, 200, 50, 250]], [1, 1, 2], [0.9, 0.8, 0.3]),
        predicted([[200, 200, 260, 260], [0, 0, 100, 62]], [1, 1], [0.7, 0.6]),
    ]
    found = average_precision(predictions, truths, ["cat", "dog"])
    cat, dog = found.per_class["cat"], found.per_class["dog"]
    assert cat.ap50 == pytest.approx((34 + 33 * 2 / 3) / 101)  # 0.5545
    assert cat.ap75 == pytest.approx(34 / 101)  # 0.3366
    assert cat.ap == pytest.approx((3 * (34 + 33 * 2 / 3) + 7 * 34) / 1010)  # 0.4020
    assert cat.curve50 == pytest.approx([1.0] * 34 + [2 / 3] * 33 + [0.0] * 34)
    assert (dog.ap, dog.ap50, dog.ap75) == pytest.approx((1, 1, 1))
    assert (cat.objects, dog.objects) == (3, 1)
    assert found.ap50 == pytest.approx((0.554455 + 1) / 2, abs=1e-6)
    assert found.ap75 == pytest.approx((0.336634 + 1) / 2, abs=1e-6)
    assert found.ap == pytest.approx((0.401980 + 1) / 2, abs=1e-6)


def test_a_difficult_object_takes_every_prediction_and_no_part_of_it():
    """Three predictions lie on the difficult object, and count as nothing. One is a tenth of it: its IoU is 0.1, so it is
    wrong, and since its score is the best it halves the precision."""
    truths = [truth([[0, 0, 10, 10], [50, 50, 150, 150]], [1, 1], [False, True])]
    on_it = [[50, 50, 150, 150], [51, 50, 150, 150], [50, 50, 150, 149]]
    whole = predicted([*on_it, [0, 0, 10, 10]], [1] * 4, [0.9, 0.8, 0.7, 0.6])
    assert average_precision([whole], truths, ["cat"]).ap == pytest.approx(1)
    part = predicted([[50, 50, 60, 150], [0, 0, 10, 10]], [1, 1], [0.9, 0.6])
    assert average_precision([part], truths, ["cat"]).ap == pytest.approx(0.5)


def test_an_object_that_counts_goes_before_a_difficult_one():
    """The prediction overlaps the difficult object more, and is right all the same."""
    truths = [truth([[0, 0, 100, 100], [10, 0, 110, 100]], [1, 1], [False, True])]
    found = average_precision([predicted([[10, 0, 110, 100]], [1], [0.9])], truths, ["cat"])
    assert found.ap75 == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_the_definition_written_out(seed):
    random = np.random.default_rng(seed)
    truths, predictions = zip(*[picture(random) for _ in range(25)], strict=True)
    found = average_precision(predictions, truths, ["a", "b", "c", "d"])
    written = {name: written_out(predictions, truths, label) for label, name in enumerate("abcd", start=1)}
    written = {name: each for name, each in written.items() if each is not None}
    assert list(found.per_class) == list(written) == ["a", "b", "c"]
    for name, precision in written.items():  # (IoUs, recalls)
        of_class = found.per_class[name]
        assert of_class.ap == pytest.approx(precision.mean(), abs=1e-9)
        assert of_class.ap50 == pytest.approx(precision[0].mean(), abs=1e-9)
        assert of_class.ap75 == pytest.approx(precision[5].mean(), abs=1e-9)
        assert of_class.curve50 == pytest.approx(precision[0].tolist(), abs=1e-9)
    assert found.ap == pytest.approx(np.mean([each.mean() for each in written.values()]))
    assert 0.05 < found.ap < found.ap50 < 0.95


def picture(random):
    """Up to 5 objects of three classes, a few of them difficult; predictions near them, doubled, or on nothing. No object
    is of the fourth class."""
    count = int(random.integers(1, 6))
    corners = random.uniform(0, 300, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(20, 120, (count, 2))], 1)
    labels, difficult = random.integers(1, 4, count), random.random(count) < 0.25
    near = boxes.repeat(2, 0) + random.normal(0, 6, (2 * count, 4))
    chance = random.uniform(0, 300, (3, 2))
    every = np.concatenate([near, np.concatenate([chance, chance + 50], 1)])
    guessed = np.concatenate([labels.repeat(2), random.integers(1, 5, 3)])
    scores = random.random(len(every))
    return truth(boxes.tolist(), labels.tolist(), difficult.tolist()), predicted(every, guessed.tolist(), scores)


def written_out(predictions, truths, label):
    """The precision of a class by IoU and recall `(10, 101)`; None if no object of it counts."""
    objects = sum(int(((each.labels == label) & ~each.difficult).sum()) for each in truths)
    if not objects:
        return None
    rows = []
    for percent in range(50, 100, 5):
        verdicts = []  # score, right
        for each, there in zip(predictions, truths, strict=True):
            verdicts += judged(each, there, label, percent / 100)
        rights = [right for _, right in sorted(verdicts, reverse=True)]
        precision, recall = [], []
        for count in range(1, len(rights) + 1):
            precision.append(sum(rights[:count]) / count)
            recall.append(sum(rights[:count]) / objects)
        reached = [[p for p, r in zip(precision, recall, strict=True) if r >= step / 100] for step in range(101)]
        rows.append([max(each, default=0.0) for each in reached])
    return np.array(rows)


def judged(each, there, label, least):
    """Of one picture: each prediction that counts, with its score and whether it is right."""
    taken, found = set(), []
    for i in sorted(range(len(each["scores"])), key=lambda i: -each["scores"][i]):
        if each["labels"][i] != label:
            continue
        overlaps = box_iou(each["boxes"][i : i + 1].double(), there.boxes.double())[0]
        fits = [j for j in range(len(there)) if there.labels[j] == label and overlaps[j] >= least]
        free = [j for j in fits if not there.difficult[j] and j not in taken]
        if free:
            taken.add(max(free, key=lambda j: overlaps[j]))
        if free or not any(there.difficult[j] for j in fits):
            found.append((each["scores"][i].item(), bool(free)))
    return found


def test_nothing_found():
    truths = [truth([[0, 0, 10, 10]], [1])]
    found = average_precision([predicted([], [], [])], truths, ["cat"])
    assert (found.ap, found.ap50, found.ap75) == (0, 0, 0)


def test_a_hundred_predictions_of_a_class_count():
    """The best hundred; the right one comes after them."""
    truths = [truth([[0, 0, 10, 10]], [1])]
    boxes = [[20, 20, 30, 30]] * 100 + [[0, 0, 10, 10]]
    assert average_precision([predicted(boxes, [1] * 101, [0.9] * 100 + [0.5])], truths, ["cat"]).ap50 == 0
    assert average_precision(
        [predicted(boxes[1:], [1] * 100, [0.9] * 99 + [0.5])], truths, ["cat"]
    ).ap50 == pytest.approx(0.01)


def test_what_can_not_be_scored():
    hard = [truth([[0, 0, 10, 10]], [1], [True])]
    with pytest.raises(TrainerError, match="no object but difficult ones"):
        average_precision([predicted([], [], [])], hard, ["cat"])
    with pytest.raises(ValueError, match="2 pictures have predictions, and 1 have truths"):
        average_precision([predicted([], [], [])] * 2, hard, ["cat"])
