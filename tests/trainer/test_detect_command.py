"""`python -m ortho_kernels.trainer.detect`: runs, exported files and random weights; one file each, a table and a page."""

import io
import json
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from tiny import tiny_words
from voc_pictures import SHAPES, write_voc

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.detect import main
from ortho_kernels.trainer.detection.settings import DetectSettings
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder
from ortho_kernels.trainer.report.later_scores import later_scores
from ortho_kernels.trainer.report.record import RunRecord
from ortho_kernels.trainer.runs.detections import read_pictures, with_random_weights
from ortho_kernels.trainer.runs.pretrain import pretrain
from ortho_kernels.trainer.runs.trained import load_trained

SMALL = ["steps=3", "warmup=1", "batch_size=2", "short_side=32", "regions=16", "anchors=16", "norm_batches=1"]
SMALL += ["fpn_channels=8", "head_width=16", "threads=1"]

RANDOM, STUDENT = "random", "student"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    sets = {("2007", "trainval"): 2, ("2012", "trainval"): 2, ("2007", "test"): 3}
    return write_voc(tmp_path_factory.mktemp("voc"), sets, size=(48, 40), difficult=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished baseline and a run with a penalty."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
        words = ["method=simclr", "penalty=so", f"runs={folder}"]
        return [pretrain(load_config([*tiny_words(*words), *words, f"penalty.gamma={gamma}"])) for gamma in (0, 0.01)]


@pytest.fixture(scope="module")
def detect(pictures, tmp_path_factory):
    page = tmp_path_factory.mktemp("page") / "page.html"
    words = [f"root={pictures}", f"classes={','.join(SHAPES)}", "detector=fpn", *SMALL, f"output={page}"]
    return lambda *more: main([*map(str, more), *words])


@pytest.fixture(scope="module")
def detected(runs, detect, tmp_path_factory):
    """Both runs with their files, and what the command has printed."""
    folder, printed = tmp_path_factory.mktemp("detected"), io.StringIO()
    copies = [shutil.copytree(run, folder / f"run{place}") for place, run in enumerate(runs)]
    with redirect_stdout(printed):
        detect(*copies, "random")
    return copies, printed.getvalue().splitlines()


@pytest.fixture
def copy(detected, tmp_path):
    """The second run, with the file of its detector."""
    return shutil.copytree(detected[0][1], tmp_path / "run")


def file(run, network=STUDENT):
    """The path and the content of the one file of this network."""
    contents = {path: json.loads(path.read_text()) for path in (run / "evaluations").glob("*.json")}
    ((path, content),) = [each for each in contents.items() if each[1]["network"] == network]
    return path, content


def test_runs_and_random_weights_stand_in_one_table(detected):
    _, lines = detected
    header = next(place for place, line in enumerate(lines) if line.split()[-3:] == ["AP", "AP50", "AP75"])
    rows = lines[header + 1 : header + 4]
    assert ["SimCLR" in row for row in rows] == [True, True, False]
    assert rows[2].startswith("random weights")
    report = lines[-1].removeprefix("Report: ")
    page = Path(report).read_text()
    assert "random weights" in page
    assert "VOC2007/000005" in page  # a test picture


def test_the_file_holds_the_scores_and_all_that_was_asked(detected):
    (first, second), _ = detected
    path, content = file(second)
    assert path.name.startswith("detection-fpn-steps3-batch_size2-")
    assert file(first)[0].name == path.name
    assert file(first, RANDOM)[0] != file(first)[0]
    assert (content["protocol"], content["detector"], content["seed"]) == ("detection", "fpn", 0)
    assert (content["train_images"], content["test_images"], content["steps"], content["step"]) == (4, 3, 3, 2)
    assert 0 <= content["ap75"] <= content["ap50"] <= 1
    assert content["options"]["milestones"] == [12_000 / 18_000, 16_000 / 18_000]
    assert content["losses"]["step"] == [1, 2, 3]
    parts = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")
    columns = [content["losses"][part] for part in parts]
    assert content["losses"]["loss"] == pytest.approx([sum(values) for values in zip(*columns, strict=True)])
    assert len(content["predictions"]) == 3


def test_reports_of_the_run_take_the_file_for_no_accuracy(detected):
    assert later_scores([RunRecord.read(run) for run in detected[0]]) == []


def test_random_weights_are_those_before_the_training(runs):
    (random,) = with_random_weights([load_trained(run) for run in runs], None)
    torch.manual_seed(5)
    (again,) = with_random_weights([load_trained(runs[1])], None)
    weights, others = random.encoder.state_dict(), again.encoder.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert not torch.equal(weights["conv1.weight"], load_trained(runs[0]).encoder.state_dict()["conv1.weight"])
    (other,) = with_random_weights([load_trained(runs[0])], 1)
    assert not torch.equal(weights["conv1.weight"], other.encoder.state_dict()["conv1.weight"])


def test_the_same_words_give_the_same_numbers(copy, detect, capsys):
    _, before = file(copy)
    detect(copy)
    assert "(replaced)" in capsys.readouterr().out
    _, after = file(copy)
    for key in before.keys() - {"seconds"}:
        assert after[key] == before[key], key


def test_resume_takes_what_is_finished(copy, detect, capsys):
    path, before = file(copy)
    detect(copy, "resume=auto")
    assert f"{path} (as it was)" in capsys.readouterr().out
    assert file(copy) == (path, before)


def test_a_detection_that_was_killed_goes_on(copy, detect, monkeypatch):
    path, whole = file(copy)
    path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.detections.predict", killed)
        with pytest.raises(KeyboardInterrupt):
            detect(copy, "checkpoint_every=2")
    assert path.with_suffix(".ckpt").is_file()
    with monkeypatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.detection.training.rate_at", killed)  # no step is left to take
        detect(copy, "resume=auto")
    _, resumed = file(copy)
    for key in ("ap", "losses", "predictions"):
        assert resumed[key] == whole[key], key
    assert not path.with_suffix(".ckpt").exists()


def killed(*_):
    raise KeyboardInterrupt


def test_an_exported_file_has_a_folder_beside_it(runs, detect, tmp_path):
    export_encoder(runs[0], tmp_path / "encoder.safetensors")
    detect(tmp_path / "encoder.safetensors")
    (path,) = (tmp_path / "encoder.evaluations").glob("detection-fpn*.json")
    content = json.loads(path.read_text())
    assert content["network"] is None
    assert content["encoder_digest"] == load_trained(tmp_path / "encoder.safetensors").digest
    with pytest.raises(TrainerError, match="random needs a RUN beside it"):
        detect(tmp_path / "encoder.safetensors", "random")


def test_an_encoder_without_stages_is_refused_before_the_pictures_are_read(run_tiny, detect):
    run = run_tiny("method=simclr", "data.size=8", "backbone=vit_tiny", "backbone.patch=4")
    with pytest.raises(TrainerError, match=r"vit_tiny has no stages to detect with: .*take a ResNet"):
        detect(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["root=nowhere"], "nowhere"),
        (["batch_size=5"], "batch_size=5 is more than the 4 training pictures"),
        (["detector=dc5"], "detector must be one of c4, fpn"),
        (["train=trainval"], "name sets as YEAR/SET"),
        (["classes=disk,square"], "triangle"),
        (["network=teacher"], "method=simclr has no teacher"),
        (["stepz=3"], "Did you mean steps"),
    ],
)
def test_wrong_words_are_refused(runs, pictures, words, message):
    given = [f"root={pictures}", f"classes={','.join(SHAPES)}", *SMALL]
    replaced = {word.partition("=")[0] for word in words}
    with pytest.raises(TrainerError, match=message):
        main([str(runs[0]), *(word for word in given if word.partition("=")[0] not in replaced), *words])


def no_training(*_):
    raise AssertionError("a training began")


def test_what_cannot_be_written_is_refused_before_the_training(runs, pictures, detect, tmp_path, monkeypatch):
    """A file stands where a folder belongs: below it even the superuser can write nothing."""
    monkeypatch.setattr("ortho_kernels.trainer.runs.detections.train", no_training)
    export_encoder(runs[0], tmp_path / "encoder.safetensors")
    (tmp_path / "encoder.evaluations").write_text("mine")
    with pytest.raises(TrainerError, match=r"Cannot write \S*encoder\.evaluations: .* then detect again"):
        detect(tmp_path / "encoder.safetensors")
    words = [f"root={pictures}", f"classes={','.join(SHAPES)}", *SMALL]
    with pytest.raises(TrainerError, match=r"Cannot write \S*encoder\.evaluations: "):
        main([str(runs[0]), *words, f"output={tmp_path / 'encoder.evaluations' / 'page.html'}"])


def test_a_package_that_is_missing_is_named_before_the_training(runs, detect, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.detections.train", no_training)
    monkeypatch.setitem(sys.modules, "torchmetrics.detection", None)
    with pytest.raises(TrainerError, match=r"pip install 'ortho_kernels\[detection\]'"):
        detect(runs[0])


def test_difficult_objects_alone_are_refused_before_the_training(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.detections.train", no_training)
    hard = write_voc(tmp_path, {("2007", "trainval"): 2, ("2007", "test"): 2}, size=(48, 40), difficult=1)
    words = [f"root={hard}", f"classes={','.join(SHAPES)}", "train=2007/trainval", *SMALL]
    with pytest.raises(TrainerError, match="no object but difficult ones"):
        main([str(runs[0]), *words])


def test_test_pictures_that_are_trained_on_are_told(pictures, capsys):
    settings = DetectSettings(
        root=str(pictures), classes=list(SHAPES), train=["2007/trainval", "2007/test"], batch_size=2
    )
    read_pictures(settings)
    assert "Of the test pictures 3 are trained on" in capsys.readouterr().out


def test_root_and_a_run_have_to_be_given(runs):
    with pytest.raises(TrainerError, match="root is missing"):
        main([str(runs[0])])
    with pytest.raises(TrainerError, match="Give the folder of a finished run"):
        main(["random"])
