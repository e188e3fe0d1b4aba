"""The command `evaluate`: finished runs and exported encoders, scored again, each score in a file of its own."""

import json
import shutil

import pytest
import torch
from PIL import Image
from tiny import tiny_words

from ortho_kernels.trainer import evaluate
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.config.exam_words import ExamSettings
from ortho_kernels.trainer.data.digits import Digits
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder
from ortho_kernels.trainer.probes.protocols import PROTOCOLS
from ortho_kernels.trainer.report.evaluated import read_evaluations
from ortho_kernels.trainer.report.intervals import share_interval
from ortho_kernels.trainer.runs.evaluation_files import evaluation_name
from ortho_kernels.trainer.runs.pretrain import pretrain
from ortho_kernels.trainer.runs.trained import load_trained

QUICK = ["train_images=200", "test_images=100", "knn.neighbors=5", "logistic.decays=1e-3"]


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    words = ["method=byol", "data=digits", "trainer.ema=0.9"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
        return pretrain(load_config([*tiny_words(*words), *words, f"runs={tmp_path_factory.mktemp('runs')}"]))


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of a finished run, to write into."""
    return shutil.copytree(trained_run, tmp_path / "run")


def evaluations(run):
    return read_evaluations(run / "evaluations")


def everything(folder):
    """All files below it with their contents, but what the command writes."""
    return {
        path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "evaluations"
    }


def test_it_scores_a_run_as_the_run_itself_did(run, capsys):
    before = everything(run)
    own = ["train_images=60", "test_images=40", "logistic.decays=1e-3"]
    evaluate.main([str(run), "protocol=knn,logistic", *own])
    results = json.loads((run / "results.json").read_text())
    knn, logistic = evaluations(run).values()
    assert knn["accuracy"] == results["knn"]
    assert logistic["accuracy"] == results["linear_probe"]
    assert knn["chance"] == results["chance"]
    assert everything(run) == before
    said = capsys.readouterr().out
    for row in (knn, logistic):
        low, high = (f"{100 * row[key]:.2f}%" for key in ("low", "high"))
        assert f"{100 * row['accuracy']:.2f}%" in said
        assert f"{low} to {high}" in said


def test_a_file_says_what_was_asked_and_what_came_out(run):
    evaluate.main([str(run), "protocol=knn", "knn.temperature=0.5", "labels=0.1", "seed=4", *QUICK])
    [(name, content)] = evaluations(run).items()
    assert name == "knn-neighbors5-temperature0.5-labels0.1-seed4-train200-test100"
    expected = {
        "protocol": "knn",
        "options": {"neighbors": 5, "temperature": 0.5},
        "data": "digits",
        "data_options": {},
        "network": "student",
        "labels": 0.1,
        "seed": 4,
        "test_images": 100,
        "classes": 10,
        "chosen": {},
        "step": 2,
    }
    assert content.items() >= expected.items()
    assert 15 <= content["train_images"] <= 25
    interval = share_interval(content["correct"], 100)
    assert (content["accuracy"], content["low"], content["high"]) == (interval.value, interval.low, interval.high)
    assert content["machine"]["torch"] == torch.__version__


def test_networks_of_a_run_and_its_export(run, tmp_path, capsys):
    for network in ("student", "teacher", "ema"):
        evaluate.main([str(run), "protocol=knn", f"network={network}", *QUICK])
    names = {f"knn-neighbors5{network}-train200-test100" for network in ("", "-ema", "-teacher")}
    assert evaluations(run).keys() == names
    file = tmp_path / "encoder.safetensors"
    export_encoder(run, file)
    evaluate.main([str(file), "protocol=knn", "data=digits", *QUICK])
    [(name, content)] = read_evaluations(tmp_path / "encoder.evaluations").items()
    assert name == "knn-neighbors5-digits-train200-test100"
    assert content["correct"] == evaluations(run)["knn-neighbors5-train200-test100"]["correct"]
    assert content["network"] is None
    capsys.readouterr()
    with pytest.raises(
        TrainerError, match="does not say what it was trained on: name a data set, such as data=cifar10"
    ):
        evaluate.main([str(file)])
    with pytest.raises(TrainerError, match=r"network=teacher: .* holds one network"):
        evaluate.main([str(file), "network=teacher", "data=digits"])


def test_several_runs_and_protocols_make_one_table(run, run_tiny, capsys):
    other = run_tiny("method=simclr", "data=digits")
    capsys.readouterr()
    words = ["protocol=knn,linear,finetune", "linear.epochs=1", "finetune.epochs=1", *QUICK]
    evaluate.main([str(run), str(other), *words])
    table = capsys.readouterr().out.rpartition("\n\n")[2].splitlines()
    assert [line.split()[:3] for line in table] == [
        ["run", "network", "protocol"],
        *([str(path), "student", name] for path in (run, other) for name in ("knn", "linear", "finetune")),
    ]


def test_an_error_keeps_the_scores_before_it(run, trained_run, tmp_path, capsys):
    other = shutil.copytree(trained_run, tmp_path / "other")
    for checkpoint in (other / "checkpoints").iterdir():
        checkpoint.write_bytes(b"")
    with pytest.raises(TrainerError, match="cannot be read"):
        evaluate.main([str(run), str(other), "protocol=knn", *QUICK])
    assert f"{run}  student  knn" in capsys.readouterr().out
    assert not (other / "evaluations").exists()


def test_an_evaluation_that_is_made_again_replaces_its_file(run, capsys):
    evaluate.main([str(run), "protocol=knn", *QUICK])
    first = (run / "evaluations" / "knn-neighbors5-train200-test100.json").read_text()
    assert "(replaced)" not in capsys.readouterr().out
    evaluate.main([str(run), "protocol=knn", *QUICK])
    [again] = (run / "evaluations").iterdir()
    assert f"{again} (replaced)" in capsys.readouterr().out
    timed = {"seconds"}
    assert {k: v for k, v in json.loads(again.read_text()).items() if k not in timed} == {
        k: v for k, v in json.loads(first).items() if k not in timed
    }


def test_an_encoder_in_gray_is_scored_on_other_pictures_in_color(run, tmp_path):
    """Of another size too: 12 x 9 pixels, for an encoder of 8 x 8."""
    folder = tmp_path / "pictures"
    pixels = Digits().load().train.pixels
    for split, count in (("train", 8), ("test", 5)):
        for i, name in enumerate(("ant", "bee")):
            (folder / split / name).mkdir(parents=True)
            for j in range(count):
                picture = Image.fromarray(pixels[20 * i + j, 0].numpy()).resize((12, 9)).convert("RGB")
                picture.save(folder / split / name / f"{j}.png")
    words = ["protocol=knn", "knn.neighbors=3", "data=imagefolder", f"data_options.root={folder}"]
    evaluate.main([str(run), *words])
    [(name, content)] = evaluations(run).items()
    assert name.startswith("knn-neighbors3-imagefolder-root_")
    assert (content["train_images"], content["test_images"], content["classes"]) == (16, 10, 2)
    assert content["data_options"] == {"root": str(folder)}


def test_names_say_what_differs_and_are_never_the_same(run):
    trained = load_trained(run)

    def name(protocol="knn", data=None, options=None, settings=None, **given):
        return evaluation_name(PROTOCOLS[protocol](**given), trained, ExamSettings(**settings or {}), data, options)

    assert name() == "knn"
    assert name(neighbors=200) == "knn-neighbors200"
    assert name(data="digits") == "knn"
    assert name(data="digits", options={"size": 16}) == "knn-digits-size16"
    assert name("linear", "cifar100", settings={"labels": 0.01}) == "linear-cifar100-labels0.01"
    assert name("logistic", decays=[1e-3, 1.0]) == "logistic-decays0.001,1"
    assert name(settings={"seed": 0}) == "knn"
    assert name(settings={"seed": 1}) == "knn-seed1"
    folders = ["/a/b", "/a_b", "/a/b/", "/" + 300 * "a", "/" + 301 * "a"]
    names = {name(data="imagefolder", options={"root": folder}) for folder in folders}
    assert len(names) == len(folders)
    assert all(len(each) < 200 and "/" not in each for each in names)
    teacher = load_trained(run, "teacher")
    assert evaluation_name(PROTOCOLS["knn"](), teacher, ExamSettings()) == "knn-teacher"


def test_a_protocol_of_ones_own(run):
    words = ["protocol=outside_parts:Always", "Always.answer=3", *QUICK]
    evaluate.main([str(run), *words])
    [(name, content)] = evaluations(run).items()
    assert name.startswith("outside_parts_Always-answer3-train200-test100-")
    share = (Digits().load().test.labels == 3).double().mean()
    assert content["accuracy"] == pytest.approx(share.item(), abs=0.1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Give the folder of a finished run"),
        (["{run}", "nowhere"], "There is no nowhere: give a run's folder"),
        (["{run}", "{run}/checkpoints"], "is no run's folder: it has no config.yaml"),
        (["{run}", "protocol=kn"], "There is no protocol=kn. Did you mean knn?"),
        (["{run}", "protocol=knn,knn"], "give each protocol once"),
        (["{run}", "network=both"], "network must be one of student, teacher, ema; got both"),
        (["{run}", "labels=0.00001"], "labels=1e-05 of 1348 training pictures is less than one for each of 10 classes"),
        (["{run}", "labels=0"], "labels must be more than 0"),
        (["{run}", "data=cifar11"], "There is no data=cifar11. Did you mean cifar10?"),
        (["{run}", "data=imagefolder"], "data=imagefolder needs data_options.root=FOLDER"),
        (["{run}", "data=digits", "data_options.rot=x"], "data_options: data=digits has no option rot."),
        (["{run}", "data_options.root=x"], "data_options are those of the source that data names: give data too"),
        (["{run}", "train_images=12"], "knn.neighbors=20: there are 12 training pictures to vote"),
        (["{run}", "device=mps"], "device=mps: torch sees none here"),
    ],
)
def test_wrong_words_leave_nothing_behind(run, words, said):
    before = everything(run)
    with pytest.raises(TrainerError) as caught:
        evaluate.main([word.format(run=run) for word in words])
    assert said in str(caught.value)
    assert everything(run) == before
    assert not (run / "evaluations").exists()


def test_a_run_without_a_teacher(run_tiny):
    run = run_tiny("method=simclr", "data=digits")
    with pytest.raises(TrainerError, match="method=simclr has no teacher to judge here"):
        evaluate.main([str(run), "network=teacher"])


def test_a_run_without_test_pictures(run_tiny, tmp_path):
    for i in range(20):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.effect_noise((8, 8), 60 + i).save(tmp_path / "pictures" / f"{i:02}.png")
    words = ["data=imagefolder", f"data.root={tmp_path / 'pictures'}", "data.size=8", "trainer.batch_size=8"]
    run = run_tiny("method=simclr", *words)
    with pytest.raises(TrainerError, match="was judged without labeled test pictures: name some, such as data=cifar10"):
        evaluate.main([str(run)])
    evaluate.main([str(run), "data=digits", "protocol=knn", *QUICK])
    assert list(evaluations(run)) == ["knn-neighbors5-digits-train200-test100"]


def test_a_run_that_still_trains(run):
    (run / "results.json").unlink()
    with pytest.raises(TrainerError, match=r"has not finished \(step 2\): wait for it"):
        evaluate.main([str(run)])


def test_weights_that_are_not_finite_give_no_file(run):
    checkpoint = next((run / "checkpoints").iterdir())
    content = torch.load(checkpoint, weights_only=False)
    for name, value in content["state_dict"].items():
        if name.startswith("method.encoder.") and name.endswith("running_mean"):
            value.fill_(float("nan"))
    torch.save(content, checkpoint)
    with pytest.raises(TrainerError, match=r"features are NaN or infinite for 200 of 200 training pictures"):
        evaluate.main([str(run), *QUICK])
    assert not (run / "evaluations").exists()


def test_help_lists_options_of_all_protocols(capsys):
    evaluate.main(["--help"])
    said = capsys.readouterr().out
    for option in ("network=null", "labels=1.0", "knn.neighbors=20", "linear.epochs=100", "finetune.lr=0.05"):
        assert f"  {option} " in said


def test_long_work_says_how_far_it_is(run, monkeypatch, capsys):
    monkeypatch.setattr("ortho_kernels.trainer.probes.progress_lines.LINE_SECONDS", 0.0)
    words = ["protocol=linear,logistic", "linear.epochs=3", "batch_size=100", *QUICK, "logistic.decays=1e-3,1e-2"]
    evaluate.main([str(run), *words])
    lines = capsys.readouterr().out.splitlines()
    for line in ("batches of training pictures: 1/2", "epochs of linear: 2/3", "decays: 1/2"):
        assert line in lines
