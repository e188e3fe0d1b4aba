"""Average precision as COCO defines it, by torchmetrics and faster-coco-eval; VOC's difficult objects do not count.

AP50 and AP75 are the mean over 101 recalls of the precision at an IoU of 0.5 and of 0.75, and then over classes. AP is the
mean over the IoUs 0.5, 0.55, ..., 0.95. VOC's own rules of 2007 and 2010 take other recalls: see docs/detection.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainerError
from .voc import Boxes

MOST_PREDICTIONS = 100  # of a class in a picture, those with the highest scores, as COCO counts
BEYOND_ALL_SIZES = 1e11  # square pixels; COCO leaves objects of more than 1e10 out of its count
IOUS = [percent / 100 for percent in range(50, 100, 5)]
RECALLS = [
    percent / 100 for percent in range(101)
]  # torchmetrics' own are in float32: a recall of 0.3 is below its 0.3
AT_50, AT_75 = 0, 5  # places among them


@dataclass(frozen=True)
class ClassPrecision:
    """Of one class, as shares."""

    objects: int  # that count
    ap: float
    ap50: float
    ap75: float
    curve50: list[float]  # the highest precision at recalls of at least 0, 0.01, ..., 1, at an IoU of 0.5


@dataclass(frozen=True)
class Precision:
    """Means over the classes, as shares."""

    ap: float
    ap50: float
    ap75: float
    per_class: dict[str, ClassPrecision]  # those with an object that counts


def average_precision(
    predictions: Sequence[dict[str, Tensor]], truths: Sequence[Boxes], classes: Sequence[str]
) -> Precision:
    """Scores predictions, one dictionary a picture: `boxes` float `(n, 4)` in pixels, `labels` `(n,)` from 1, `scores`
    `(n,)`.

    A prediction matches the object of its class that it overlaps most and that no better one has taken. One that matches
    a difficult object alone is neither right nor wrong, and difficult objects that are missed are not missed.

    Raises ValueError if there are not as many predictions as truths, TrainerError if no object counts.
    """
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} pictures have predictions, and {len(truths)} have truths")
    counted, metric = _counted(truths), _metric()
    on_host = [{key: each[key].detach().cpu() for key in ("boxes", "labels", "scores")} for each in predictions]
    metric.update(on_host, [_target(truth, each["labels"]) for truth, each in zip(truths, on_host, strict=True)])
    result = metric.compute()
    found = result["classes"].reshape(-1).tolist()
    per_class = {
        classes[label - 1]: _of_class(
            result["precision"][:, :, found.index(label), 0, -1], int((counted == label).sum())
        )
        for label in counted.unique().tolist()
    }
    every = per_class.values()
    return Precision(
        fmean(each.ap for each in every),
        fmean(each.ap50 for each in every),
        fmean(each.ap75 for each in every),
        per_class,
    )


def require_scorable(truths: Sequence[Boxes]) -> None:
    """Raises TrainerError where no prediction could be scored: no object counts, or a package is missing."""
    _counted(truths)
    _metric()


def _counted(truths: Sequence[Boxes]) -> Tensor:
    """The labels of all objects that are not difficult."""
    counted = torch.cat([truth.labels[~truth.difficult] for truth in truths]) if truths else torch.zeros(0).long()
    if not len(counted):
        raise TrainerError("The test pictures have no object but difficult ones: there is nothing to score.")
    return counted


def _metric() -> Any:
    try:
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(
            iou_thresholds=IOUS,
            rec_thresholds=RECALLS,
            max_detection_thresholds=[1, 10, MOST_PREDICTIONS],
            extended_summary=True,
            backend="faster_coco_eval",
        )
    except ModuleNotFoundError:
        raise TrainerError(
            "Scoring boxes needs the packages torchmetrics and faster-coco-eval: pip install 'ortho_kernels[detection]'."
        ) from None
    metric.warn_on_many_detections = False
    return metric


def _target(truth: Boxes, predicted: Tensor) -> dict[str, Tensor]:
    """The objects as torchmetrics takes them.

    COCO has two ways to leave an object out. Its crowds match by another overlap than IoU, so ours are left out by their
    area. Such an object takes one prediction alone: there is a copy of it for each `predicted` one of its class.
    """
    copies = torch.where(truth.difficult, (truth.labels[:, None] == predicted).sum(1), 1)
    area = torch.where(truth.difficult, BEYOND_ALL_SIZES, 0.0)  # 0: that of the box
    return {
        "boxes": truth.boxes.repeat_interleave(copies, 0),
        "labels": truth.labels.repeat_interleave(copies),
        "area": area.repeat_interleave(copies),
    }


def _of_class(precision: Tensor, objects: int) -> ClassPrecision:
    """From the precision by IoU and recall `(10, 101)`."""
    ap = precision.mean(1)
    return ClassPrecision(objects, ap.mean().item(), ap[AT_50].item(), ap[AT_75].item(), precision[AT_50].tolist())
