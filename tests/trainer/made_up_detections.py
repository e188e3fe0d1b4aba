"""Results of detectors that nobody trained: the boxes of generated pictures, moved by noise, and their real scores."""

from dataclasses import asdict

import numpy as np
import torch
from made_up_runs import MACHINE, SETTINGS
from voc_pictures import SHAPES, write_voc

from ortho_kernels.trainer.detection.average_precision import average_precision
from ortho_kernels.trainer.detection.voc import read_voc

SETS = {("2007", "test"): 12}
NOISE = {"SimCLR baseline": 5.0, "SimCLR + SO 1e-3": 3.0, "random weights": 9.0}  # of the corners, in pixels
GAMMAS = {"SimCLR baseline": 0.0, "SimCLR + SO 1e-3": 1e-3}


def detections(folder, labels=tuple(NOISE), seeds=(0,), shown=3, size=(120, 90)):
    """What `write_detection_page` reads: results, and examples."""
    voc = read_voc(write_voc(folder, SETS, size, difficult=0.2), list(SETS), SHAPES)
    results, predictions = [], []
    for label in labels:
        for seed in seeds:
            predicted = [noisy(truth, NOISE[label] * min(size) / 90, seed + i) for i, truth in enumerate(voc.truths)]
            predictions.append(predicted)
            results.append(result(label, seed, average_precision(predicted, voc.truths, SHAPES)))
    examples = [
        {
            "name": voc.truths[i].name,
            "pixels": voc[i][0],
            "truth": vars(voc.truths[i]),
            "predictions": [each[i] for each in predictions],
        }
        for i in range(shown)
    ]
    return results, examples


def noisy(truth, pixels, seed):
    """Each object found, nearly, and one that is not there."""
    random = np.random.default_rng(seed)
    boxes = torch.cat([truth.boxes, truth.boxes[:1] / 2])
    boxes = boxes + torch.from_numpy(random.normal(0, pixels, boxes.shape)).float()
    scores = torch.from_numpy(random.uniform(0.4, 1, len(boxes))).float()
    return {"boxes": boxes, "labels": torch.cat([truth.labels, truth.labels[:1]]), "scores": scores}


def result(label, seed, precision):
    settings = {**SETTINGS, "penalty.gamma": GAMMAS[label]} if label in GAMMAS else {"weights": "random"}
    steps = np.arange(10.0, 201.0, 10.0)
    parts = {
        name: (height * np.exp(-steps / 20 / NOISE[label])).tolist()
        for name, height in (("objectness", 0.7), ("rpn_box_reg", 0.2), ("classifier", 1.1), ("box_reg", 0.4))
    }
    return {
        "label": label,
        "settings": {**settings, "seed": seed},
        "detector": "c4",
        "options": {"detector": "c4", "steps": 200, "lr": 0.02, "seed": seed},
        "classes": list(SHAPES),
        "steps": 200,
        "train_images": 120,
        "test_images": 12,
        "seconds": 150.0,
        "machine": MACHINE,
        "losses": {
            "step": steps.tolist(),
            "loss": np.sum(list(parts.values()), axis=0).tolist(),
            **{f"loss_{name}": values for name, values in parts.items()},
        },
        **asdict(precision),
    }
