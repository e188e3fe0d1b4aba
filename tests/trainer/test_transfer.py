"""`python -m ortho_kernels.trainer.transfer`: encoders on other data sets, and the table of them all."""

import csv
import json
import os
import shutil
import statistics
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_words

from ortho_kernels.trainer import transfer
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder
from ortho_kernels.trainer.report.record import RunRecord
from ortho_kernels.trainer.report.transfer_table import Score, as_csv, format_transfer
from ortho_kernels.trainer.runs.pretrain import pretrain
from ortho_kernels.trainer.runs.trained import load_trained

SMALL = ["train_images=60", "test_images=40", "logistic.decays=0.01"]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """A baseline and a regularized run, each with two seeds."""
    runs = tmp_path_factory.mktemp("trained")
    chosen = [["method=simclr", "penalty=so", f"penalty.gamma={g}", f"seed={s}"] for g in (0, 0.1) for s in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
        for words in chosen:
            folder = pretrain(load_config([*tiny_words(), f"runs={runs}", *words]))
            folder.rename(runs / "-".join(word.partition("=")[2] for word in words[2:]))
    return runs


@pytest.fixture
def runs(trained_once, tmp_path):
    """Copies that a test may write into: 0-0, 0-1, 0.1-0, 0.1-1 (gamma, seed)."""
    return shutil.copytree(trained_once, tmp_path / "runs")


@pytest.fixture
def pictures(tmp_path):
    """Two classes of gray noise, 12 + 8 pictures each, wider than high."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 8)):
        for name, brightness in (("dark", 90), ("light", 120)):
            (tmp_path / "noise" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(generator.normal(brightness, 40, (16, 24)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "noise" / split / name / f"{i}.png")
    return tmp_path / "noise"


def contents(run):
    return {
        path.name: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.parent.name != "evaluations"
    }


def test_scores_are_those_of_the_encoder_on_each_file(runs, pictures, capsys):
    run = runs / "0-0"
    before = contents(run)
    words = ["data=imagefolder", f"data_options.imagefolder.root={pictures}", "protocol=knn", "knn.neighbors=1"]
    transfer.main([str(run), *words])
    [file] = (run / "evaluations").iterdir()
    found = json.loads(file.read_text())

    trained = load_trained(run)
    features = {}
    for split in ("train", "test"):
        for path in sorted((pictures / split).rglob("*.png")):
            with torch.no_grad():
                vector = trained.encoder(trained.preprocess(Image.open(path))[None])[0].double()
            features.setdefault(split, []).append((path.parent.name, vector / vector.norm()))
    correct = sum(
        max(features["train"], key=lambda item: item[1] @ vector)[0] == name for name, vector in features["test"]
    )
    assert (found["correct"], found["test_images"], found["train_images"]) == (correct, 16, 24)
    assert (found["data"], found["classes"], found["chance"]) == ("imagefolder", 2, 0.5)
    assert contents(run) == before
    assert f"{100 * correct / 16:.2f} (" in capsys.readouterr().out


def test_one_table_of_groups_and_their_difference(runs, tmp_path, capsys):
    every = sorted(map(str, runs.iterdir()))
    transfer.main([*every, "data=digits,failing_sources:Failing", f"output={tmp_path / 'new' / 'scores.csv'}", *SMALL])
    out = capsys.readouterr().out
    with open(tmp_path / "new" / "scores.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    scores = {(row["group"], row["seed"]): 100 * float(row["accuracy"]) for row in rows if row["data"] == "digits"}
    assert len(scores) == 4
    for group in {group for group, _ in scores}:
        first, second = scores[group, "0"], scores[group, "1"]
        half = 12.7062047 * abs(first - second) / 2  # Student's t with one degree of freedom, times s / sqrt(2)
        assert f"{group}, 2 seeds" in out
        assert f"{statistics.mean((first, second)):.2f} ± {half:.2f}" in out or first == second
    assert "SimCLR + SO 0.1 − SimCLR baseline" in out
    assert all(row["error"] == "ValueError: the archive is empty" for row in rows if row["data"] != "digits")


def refuse(*_, **__):
    raise OSError("no network here")


def test_what_cannot_be_had_stops_no_other_set(runs, tmp_path, capsys):
    words = ["data=food101,imagefolder,digits", f"data_options.food101.root={tmp_path}/none"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("urllib.request.urlopen", refuse)
        transfer.main([str(runs / "0-0"), str(runs / "0-1"), *words, *SMALL])
    out = capsys.readouterr().out
    assert out.count("fetching it") == 1  # for both encoders
    assert "Scored: digits (60 to fit on, 40 to test on, 10 classes)." in out
    assert "Not scored: food101. Food-101 could not be fetched (no network here)" in out
    assert "data_options.food101.root=FOLDER" in out
    assert "Not scored: imagefolder. data=imagefolder needs data_options.imagefolder.root=FOLDER" in out
    assert [path.name for path in (runs / "0-0" / "evaluations").iterdir()] == [
        "logistic-decays0.01-train60-test40.json"
    ]


def test_what_has_been_scored_is_taken_as_it_is(runs, capsys):
    words = [str(runs / "0-0"), "data=digits", *SMALL]
    transfer.main(words)
    [file] = (runs / "0-0" / "evaluations").iterdir()
    found = json.loads(file.read_text())
    file.write_text(json.dumps(found | {"accuracy": 0.125}))
    transfer.main(words)
    assert "12.50" in capsys.readouterr().out
    transfer.main([*words, "again=true"])
    again = json.loads(file.read_text())
    assert again | {"seconds": 0} == found | {"seconds": 0}
    file.write_text(json.dumps(found | {"accuracy": 0.125, "step": 1}))  # before the run was prolonged
    transfer.main(words)
    assert json.loads(file.read_text())["accuracy"] == found["accuracy"]
    older = {"accuracy": 0.125, "options": {"decays": [1.0]}}  # of a version with another default
    file.write_text(json.dumps(found | older))
    transfer.main(words)
    assert json.loads(file.read_text())["accuracy"] == found["accuracy"]
    file.write_text("{")
    with pytest.raises(TrainerError, match=r"logistic-decays0\.01.* cannot be read"):
        transfer.main(words)


def test_a_file_is_scored_as_its_run_is(runs, tmp_path, capsys):
    export_encoder(runs / "0-0", tmp_path / "encoder.safetensors")
    words = ["data=digits", "protocol=knn,logistic", *SMALL]
    transfer.main([str(tmp_path / "encoder.safetensors"), str(runs / "0-0"), *words])
    assert len(list((tmp_path / "encoder.evaluations").iterdir())) == 2
    for path in (tmp_path / "encoder.evaluations").iterdir():
        found = json.loads(path.read_text())
        own = json.loads((runs / "0-0" / "evaluations" / path.name.replace("-digits", "")).read_text())
        assert (found["correct"], found["test_images"]) == (own["correct"], own["test_images"])
    capsys.readouterr()
    os.utime(tmp_path / "encoder.safetensors")
    before = path.stat().st_mtime_ns
    transfer.main([str(tmp_path / "encoder.safetensors"), *words])
    assert path.stat().st_mtime_ns == before  # the same encoder, copied
    export_encoder(runs / "0.1-1", tmp_path / "encoder.safetensors")
    os.utime(tmp_path / "encoder.safetensors", (0, 0))  # another one, as old as it may be
    transfer.main([str(tmp_path / "encoder.safetensors"), *words])
    assert path.stat().st_mtime_ns > before
    assert "encoder.safetensors" in capsys.readouterr().out


def test_files_whose_names_have_dots_keep_their_scores_apart(runs, tmp_path):
    for name in ("byol.seed0", "byol.seed1"):
        export_encoder(runs / "0-0", tmp_path / name)
        transfer.main([str(tmp_path / name), "data=digits", *SMALL])
        assert len(list((tmp_path / f"{name}.evaluations").iterdir())) == 1


def test_sets_and_pictures_of_one_class_are_refused(runs, pictures, capsys):
    shutil.rmtree(pictures / "test" / "light")
    transfer.main([str(runs / "0-0"), "data=imagefolder", f"data_options.imagefolder.root={pictures}"])
    out = capsys.readouterr().out
    assert "logistic: nothing could be scored." in out
    assert "All 8 pictures to test on are of one class (dark)" in out
    assert not list((runs / "0-0").glob("evaluations/*"))


def test_a_set_of_one_picture_is_refused(runs, pictures, capsys):
    for path in sorted((pictures / "test").rglob("*.png"))[1:]:
        path.unlink()
    shutil.rmtree(pictures / "test" / "light")
    transfer.main([str(runs / "0-0"), "data=imagefolder", f"data_options.imagefolder.root={pictures}"])
    assert "has 1 picture to test on: a score needs 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["data=digts"], r"There is no data=digts\. Did you mean digits\?"),
        (
            ["data_options.cifar10.root=x"],
            r"data_options\.cifar10: give options below the name of a data set that data=",
        ),
        (["data=digits", "data_options.digits=x"], r"data_options\.digits: give options below"),
        (
            ["data=scripts", "data_options.scripts.leters=3"],
            r"data=scripts has no option leters\. Did you mean letters",
        ),
        (["data=scripts", "data_options.scripts.copies=0"], r"data_options\.scripts\.copies"),
        (["dta=digits"], r"There is no option dta\. Did you mean data"),
        (["data=[]"], r"data=: name each data set once, and one at least"),
        (["data=digits,digits"], r"data=digits,digits: name each data set once"),
        (["output=."], r"output=\. is a folder: give the file to write"),
    ],
)
def test_wrong_words_are_answered_before_anything_is_scored(runs, words, expected):
    with pytest.raises(TrainerError, match=expected):
        transfer.main([str(runs / "0-0"), *words])
    assert not (runs / "0-0" / "evaluations").exists()


def test_a_run_that_still_trains_is_refused_before_anything_is_scored(runs):
    (runs / "0.1-0" / "results.json").unlink()
    with pytest.raises(TrainerError, match=r"0\.1-0 has not finished"):
        transfer.main([str(runs / "0-0"), str(runs / "0.1-0"), "data=digits"])
    assert not (runs / "0-0" / "evaluations").exists()


def test_a_folder_of_runs_stands_for_those_that_have_finished(runs, capsys):
    (runs / "0.1-0" / "results.json").unlink()
    transfer.main([str(runs), "data=digits", *SMALL])
    out = capsys.readouterr().out
    assert "Left out: 0.1-0 (not finished, at step 2)" in out
    assert "[3/3] digits, SimCLR + SO 0.1, logistic: " in out


def test_the_file_says_what_pictures_were_drawn_from(runs, tmp_path):
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    (tmp_path / "fonts").mkdir()
    shutil.copy(fonts, tmp_path / "fonts")
    options = [f"root={tmp_path / 'fonts'}", "scripts=[Latin,Greek]", "letters=12", "copies=1"]
    words = [f"data_options.scripts.{option}" for option in options]
    transfer.main([str(runs / "0-0"), "data=scripts", "logistic.decays=0.01", *words])
    [file] = (runs / "0-0" / "evaluations").iterdir()
    found = json.loads(file.read_text())
    assert found["data_origin"].startswith("1 font, sha256 ")
    assert found["data_options"]["scripts"] == ["Latin", "Greek"]
    assert found["train_images"] + found["test_images"] > 12


def test_without_a_run_the_error_asks_for_one():
    with pytest.raises(TrainerError, match="Give the folder of a finished run"):
        transfer.main(["data=digits"])


def test_help_lists_the_options(capsys):
    transfer.main(["--help"])
    out = capsys.readouterr().out
    assert "data_options={}" in out
    assert "logistic.decays=" in out


def record(label, seed=0, gamma=0.0):
    settings = {"seed": seed, "penalty.gamma": gamma, "method.name": "simclr"}
    return RunRecord(label, {"label": label, "settings": settings}, {}, {}, [], "")


def score(run, data, correct, of=100):
    share = {"accuracy": correct / of, "low": 0, "high": 1, "test_images": of, "train_images": 50, "classes": 4}
    return Score(run, "logistic", data, share | {"chance": 0.25, "chosen": {}})


def test_the_mean_is_over_the_sets_that_all_encoders_have():
    first, second = record("first"), record("second", gamma=0.5)
    scores = [
        *(score(first, data, correct) for data, correct in (("a", 50), ("b", 70), ("c", 10))),
        *(score(second, data, correct) for data, correct in (("a", 60), ("b", 80))),
        Score(second, "logistic", "c", error="It is gone."),
    ]
    lines = format_transfer(scores).splitlines()
    assert lines[0].split("  ")[-1].strip() == "mean of a, b"
    assert lines[1].split()[-1] == "60.00"
    assert lines[2].split()[-1] == "70.00"
    assert "–" in lines[2]
    assert lines[3].split()[-4:] == ["+10.00", "+10.00", "–", "+10.00"]
    assert lines[4].split()[-3:] == ["25.00"] * 3
    assert "Not scored: c (second). It is gone." in lines
    assert "A difference of one seed has none" in format_transfer(scores)


def test_the_interval_of_one_run_is_wilsons():
    [_, line, *_] = format_transfer([score(record("one"), "a", 90)]).splitlines()
    z = 1.959963985
    middle = (0.9 + z**2 / 200) / (1 + z**2 / 100)
    half = z * (0.9 * 0.1 / 100 + z**2 / 40000) ** 0.5 / (1 + z**2 / 100)
    assert line.split("  ")[-1].strip() == f"90.00 ({100 * (middle - half):.2f} to {100 * (middle + half):.2f})"


def test_the_difference_of_groups_is_paired_by_seed():
    pairs = [(50, 54), (60, 65), (40, 43)]
    scores = []
    for seed, (before, after) in enumerate(pairs):
        scores.append(score(record("base", seed), "a", before))
        scores.append(score(record("so", seed, gamma=0.5), "a", after))
    text = format_transfer(scores)
    half = 4.30265273 * statistics.stdev([4, 5, 3]) / 3**0.5
    assert f"+4.00 (+{4 - half:.2f} to +{4 + half:.2f})*" in text
    assert f"50.00 ± {4.30265273 * 10 / 3**0.5:.2f}" in text
    assert "* The 95 % interval of the difference excludes 0." in text
    assert "one seed" not in text


def test_many_sets_are_split_into_tables_that_a_terminal_holds():
    scores = [score(record("one"), f"a rather long name {i}", 50) for i in range(12)]
    lines = format_transfer(scores).splitlines()
    table = lines[: lines.index(next(line for line in lines if line.startswith("Scored")))]
    assert max(map(len, table)) <= 120
    assert sum(line.startswith("one") for line in table) == 3
    assert sum(line.count("long name") for line in table) == 12


def test_every_score_has_a_line_in_the_csv():
    good, bad = (
        score(record("one", seed=3), "a", 50),
        Score(record("two"), "logistic", "b", error='It says "no", twice.'),
    )
    rows = list(csv.DictReader(as_csv([good, bad]).splitlines()))
    assert [(row["run"], row["data"], row["accuracy"], row["seed"], row["error"]) for row in rows] == [
        ("one", "a", "0.5", "3", ""),
        ("two", "b", "", "0", 'It says "no", twice.'),
    ]
