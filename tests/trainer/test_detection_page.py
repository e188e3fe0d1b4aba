"""The page of detectors: what it says of made-up ones, the verdicts on boxes, and how a browser shows it."""

import re

import numpy as np
import pytest
import torch
from made_up_detections import detections
from test_report_in_browser import BROKEN_IMAGES, WIDER_THAN_THE_PAGE

from ortho_kernels.trainer.report.detected import detection_lines
from ortho_kernels.trainer.report.detection_page import render, write_detection_page
from ortho_kernels.trainer.report.plots.boxes import LEFT_OUT, RIGHT, WRONG, verdicts

PLACES_OF_PICTURES = """
[...document.querySelectorAll(".pictures svg")].map(element => {
  const box = element.getBoundingClientRect();
  return [box.x, box.y + scrollY, box.width, box.height];
})
"""


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_scores_of_one(tmp_path):
    results, examples = detections(tmp_path, ["random weights"])
    page = render(results, examples)
    [one] = results
    for value in (one["ap"], one["ap50"], one["ap75"], *(each["ap75"] for each in one["per_class"].values())):
        assert f"<td>{100 * value:.2f} %</td>" in page
    objects = sum(each["objects"] for each in one["per_class"].values())
    assert f"trained for 200 steps on 120 pictures. Scored on 12 pictures with {objects} objects of 3 classes" in page
    assert "repeat with other seeds" in page
    assert "difference" not in re.findall("<th>([^<]*)</th>", page)


def test_seeds_make_a_row(tmp_path):
    """Three seeds of two encoders: means, and the difference to the baseline paired by seed."""
    results, _ = detections(tmp_path, ["SimCLR baseline", "SimCLR + SO 1e-3"], seeds=(0, 1, 2))
    baseline, penalty = [[each["ap"] for each in results if each["label"] == label] for label in _labels(results)]
    gains = torch.tensor(penalty, dtype=torch.float64) - torch.tensor(baseline, dtype=torch.float64)
    half = 4.302653 * gains.std() / 3**0.5  # Student's t of 2 degrees of freedom
    text = text_of(render(results))
    assert f"+{100 * gains.mean():.2f} points (+{100 * (gains.mean() - half):.2f} to" in text
    assert f"AP {100 * sum(baseline) / 3:.2f} %" in text
    [head, *lines] = detection_lines(results)
    assert head.split() == ["in", "percent", "AP", "AP50", "AP75"]
    assert re.match(rf"SimCLR baseline, 3 seeds +{100 * sum(baseline) / 3:.2f} ± ", lines[0])
    assert f"+{100 * gains.mean():.2f}" in lines[2]


def _labels(results):
    return dict.fromkeys(each["label"] for each in results)


def test_detectors_that_were_trained_otherwise_are_not_compared(tmp_path):
    results, _ = detections(tmp_path, ["SimCLR baseline", "SimCLR + SO 1e-3", "random weights"])
    assert len(detection_lines(results)) == 5  # the last is SO against its baseline
    results[1]["options"] = {**results[1]["options"], "steps": 400}
    assert len(detection_lines(results)) == 4


def test_two_detectors_of_one_encoder_are_told_apart(tmp_path):
    results, _ = detections(tmp_path, ["SimCLR baseline"])
    [c4], fpn = results, {**results[0], "detector": "fpn", "options": {**results[0]["options"], "detector": "fpn"}}
    page = render([c4, fpn])
    assert "Faster R-CNN (C4 and FPN)" in page
    assert "detection.detector=fpn" in page


def test_pictures_and_boxes(tmp_path):
    """Each picture is in the page once. It has a box for each object, and one for each prediction that is sure enough."""
    results, examples = detections(tmp_path, shown=2)
    page = render(results, examples)
    assert page.count("data:image/jpeg") == 2
    assert page.count('<use href="#picture-1"/>') == len(results)
    shown = sum(len(each["truth"]["labels"]) for each in examples)
    shown += sum(int((found["scores"] >= 0.5).sum()) for each in examples for found in each["predictions"])
    assert page.count("<text ") - page.count("<text style") >= shown
    assert len(re.findall(r'<text x="[\d.]+" y="[\d.]+" font-size', page)) == shown
    examples[0]["predictions"][0]["scores"][:] = 0.1
    assert "SimCLR baseline: none" in render(results, examples)


def test_verdicts():
    """Of an object the second prediction is wrong; of a difficult one both are neither."""
    truth = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 40, 40]]),
        "labels": torch.tensor([1, 2]),
        "difficult": torch.tensor([False, True]),
    }
    predicted = {
        "boxes": torch.tensor(
            [[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 40, 39], [21, 20, 40, 40], [0, 0, 10, 10], [0, 0, 4, 4]]
        ),
        "labels": torch.tensor([1, 1, 2, 2, 2, 1]),
        "scores": torch.tensor([0.6, 0.9, 0.8, 0.7, 0.5, 0.95]),
    }
    assert verdicts(predicted, truth) == [WRONG, RIGHT, LEFT_OUT, LEFT_OUT, WRONG, WRONG]
    none = {key: values[:0] for key, values in predicted.items()}
    assert verdicts(none, truth) == []


def test_a_page_that_fails_leaves_the_old_one(tmp_path):
    results, _ = detections(tmp_path, ["random weights"])
    path = tmp_path / "new" / "report.html"
    write_detection_page(path, results)
    before = path.read_text()
    with pytest.raises(KeyError):
        write_detection_page(path, [{**results[0], "per_class": {"disk": {}}}])
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser(browser, tmp_path, width, dark):
    results, examples = detections(tmp_path, seeds=(0, 1))
    write_detection_page(tmp_path / "page.html", results, examples)
    browser.open(tmp_path / "page.html", width, dark=dark)
    assert browser.complaints() == []
    assert browser.run(WIDER_THAN_THE_PAGE) == []
    assert browser.run(BROKEN_IMAGES) == 0
    places = browser.run(PLACES_OF_PICTURES)
    assert len(places) == len(examples) * (1 + 3)
    assert all(wide >= 150 and abs(wide / high - 4 / 3) < 0.05 for _, _, wide, high in places)
    first, second, *_ = [np.asarray(browser.picture(*place)).astype(float) for place in places]
    assert first.std() > 20
    assert np.abs(first - second).mean() < 40  # it refers to the pixels of the first one, and has other boxes
