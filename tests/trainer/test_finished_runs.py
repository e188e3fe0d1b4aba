"""`trainer.report`: which finished runs paths name, and where their report goes."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from made_up_runs import made_up

from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report import __main__ as command
from ortho_kernels.trainer.report.finished import read_finished

NONE = {"penalty.gamma": 0.0}


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.report.plots.panels.svg", lambda *_: "<svg></svg>")


@pytest.fixture
def write(tmp_path):
    """Writes a finished run to a folder of its own, which it returns."""

    def write(name, *arguments, evaluated=(), **results):
        run = replace(made_up(*arguments, **results), folder=tmp_path / "runs" / name)
        run.folder.mkdir(parents=True)
        (run.folder / "config.yaml").write_text(run.configuration)
        (run.folder / "metrics.csv").write_text("step,loss,penalty_raw,spread\n1,2.0,5.0,0.9\n2,1.5,4.0,0.8\n")
        spectra = {"weights": run.weights, "representation": run.representation}
        (run.folder / "spectra.json").write_text(json.dumps(spectra))
        (run.folder / "results.json").write_text(json.dumps(run.results))
        for file, content in dict(evaluated).items():
            (run.folder / "evaluations").mkdir(exist_ok=True)
            (run.folder / "evaluations" / f"{file}.json").write_text(json.dumps(content))
        return run.folder

    return write


@pytest.fixture
def pair(write):
    return [write("a", "none", NONE), write("b", "so", knn=0.54)]


def training(write, step=2):
    folder = write(f"unfinished-{step}", "so")
    (folder / "results.json").unlink()
    if not step:
        (folder / "metrics.csv").unlink()
    return folder


def test_a_run_has_its_report_in_its_folder(pair, capsys):
    command.main([str(pair[1])])
    assert "<h1>So</h1>" in (pair[1] / "report.html").read_text()
    out = capsys.readouterr().out
    assert "54.00 %" in out
    assert out.endswith(f"Report: {pair[1] / 'report.html'}\n")


def test_several_have_theirs_in_a_new_folder_beside(pair, capsys):
    command.main(list(map(str, pair)))
    [page] = pair[0].parent.glob("report-*/report.html")
    assert re.fullmatch(r"report-\d{8}-\d{6}", page.parent.name)
    assert "<h1>None and so</h1>" in page.read_text()
    assert "+4.00 points" in capsys.readouterr().out
    assert not [path for run in pair for path in run.glob("report.html")]


@pytest.mark.parametrize("words", [["--output", "FILE"], ["--output=FILE"], ["output=FILE"]])
def test_a_file_may_be_named(pair, tmp_path, words, capsys):
    file = tmp_path / "new" / "page.html"
    command.main([str(pair[0].parent), *(word.replace("FILE", str(file)) for word in words)])
    assert "<h1>None and so</h1>" in file.read_text()
    assert [path.name for path in file.parent.iterdir()] == ["page.html"]


def test_unfinished_runs_are_left_out_and_named(pair, write, capsys):
    training(write)
    training(write, step=0)
    broken = write("broken", "so")
    (broken / "results.json").write_text('{"label": ')
    path = command.report([pair[0].parent])
    out, page = capsys.readouterr().out, path.read_text()
    for text in (out, page):
        assert "3 runs are left out: " in text
        assert "unfinished-2 (not finished, at step 2)" in text
        assert "unfinished-0 (not finished, no step yet)" in text
        assert "broken (results.json is no whole JSON file)" in text
    assert "<h1>None and so</h1>" in page


def test_where_none_has_finished_nothing_is_written(write):
    folder = training(write)
    with pytest.raises(TrainerError, match=r"None of these runs has results: unfinished-2 \(not finished, at step 2\)"):
        command.main([str(folder)])
    assert not list(folder.parent.glob("**/report.html"))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("results.json", "[1, 2]", "results.json has no label, or it is of another kind"),
        ("results.json", '{"label": "so"}', "results.json has no settings, or it is of another kind"),
        ("results.json", b"\xff\xfe", "results.json cannot be read: it is no text in UTF-8"),
        ("spectra.json", "null", "spectra.json has no weights, or it is of another kind"),
        ("spectra.json", None, "spectra.json cannot be read: No such file or directory"),
        ("metrics.csv", "step,loss\n1,abc\n", "metrics.csv: line 2 is no row of 2 numbers: '1,abc'"),
        ("config.yaml", b"\xff\xfe", "config.yaml cannot be read: it is no text in UTF-8"),
        ("evaluations/knn.json", "{", "evaluations/knn.json cannot be read"),
        ("evaluations/spectra.json", "[]", "evaluations/spectra.json cannot be read (it is no evaluation)"),
        ("evaluations/knn.json", '{"accuracy": 0.5}', "evaluations/knn.json cannot be read (it is no evaluation)"),
    ],
)
def test_a_run_whose_file_cannot_be_read_is_left_out_and_the_others_are_reported(pair, write, file, content, reason):
    broken = write("broken", "so", evaluated={"other": {}})
    if content is None:
        (broken / file).unlink()
    else:
        (broken / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = read_finished([pair[0].parent])
    assert [run.folder.name for run in found.runs] == ["a", "b"]
    assert len(found.missing) == 1
    assert found.missing[0].startswith(f"broken ({reason}")


@pytest.mark.parametrize("knn", [1.5, -0.1, "0.5"])
def test_a_score_that_is_no_share_is_left_out(pair, write, knn):
    write("broken", "so", knn=knn)
    assert read_finished([pair[0].parent]).missing == [f"broken (results.json: knn={knn} is no share between 0 and 1)"]


def test_what_is_no_run_is_refused(tmp_path, pair):
    with pytest.raises(TrainerError, match=r"There is no folder .*nowhere"):
        command.main([str(tmp_path / "nowhere")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainerError, match=r"empty is no run and holds none"):
        command.main([str(pair[0]), str(tmp_path / "empty")])
    with pytest.raises(TrainerError, match=r"output=.*: that is a folder"):
        command.main([str(pair[0]), f"output={tmp_path}"])


def test_other_words_are_no_options(write, monkeypatch, capsys):
    with pytest.raises(TrainerError, match=r"There is no option out\. Did you mean output\?"):
        command.main(["runs", "out=page.html"])
    folder = write("seed=1", "so")
    monkeypatch.chdir(folder.parent)
    command.main(["seed=1"])
    assert capsys.readouterr().out.endswith("Report: seed=1/report.html\n")


def test_an_evaluation_that_cannot_be_read_is_named(write):
    folder = write("a", "so", evaluated={"knn": {}})
    (folder / "evaluations" / "knn.json").write_text("{")
    with pytest.raises(TrainerError, match=r"knn.json cannot be read .* remove it, and evaluate again"):
        read_finished([folder])


def test_later_spectra_go_over_the_runs_own(write):
    folder = write("a", "so", evaluated={"spectra": {"summary": {"lidar": 7.0}}, "knn": {"neighbors": 5}})
    [run] = read_finished([folder]).runs
    assert run.spectra["summary"] == {"lidar": 7.0}
    assert run.spectra["representation"] == run.representation
    assert list(run.evaluated) == ["knn"]


def test_each_run_counts_once(pair):
    runs = read_finished([pair[0], pair[0].parent, pair[1] / ".." / "a"]).runs
    assert [run.folder.name for run in runs] == ["a", "b"]


def sweep_of(folders, failed=""):
    sweep = folders[0].parent / "sweep-1"
    sweep.mkdir()
    rows = [f"{i},so,0.5,{folder}," for i, folder in enumerate(folders)]
    rows += [f'9,so,,,"{failed}"'] if failed else []
    (sweep / "sweep.csv").write_text("\n".join(["seed,penalty,knn,folder,error", *rows]) + "\n")
    return sweep


def test_a_sweep_has_its_runs_alone_and_its_report_made_again(pair, write, capsys):
    write("stranger", "stranger", {"method.name": "byol"})
    sweep = sweep_of(pair, failed="The loss is nan at step 1 in encoder.conv1.weight. Lower optimizer.lr")
    command.main([str(sweep)])
    page = (sweep / "report.html").read_text()
    assert "<h1>None and so</h1>" in page
    assert "1 run is left out: seed=9, penalty=so (failed: The loss is nan at step 1 in encoder.conv1.weight)." in page


def test_a_sweep_that_was_moved_finds_its_runs_beside_it(pair, tmp_path):
    sweep_of(pair)
    moved = tmp_path / "elsewhere"
    shutil.move(pair[0].parent, moved)
    assert [run.folder for run in read_finished([moved / "sweep-1"]).runs] == [moved / "a", moved / "b"]
    shutil.rmtree(moved / "b")
    assert read_finished([moved / "sweep-1"]).missing == ["b (its folder is gone)"]


def test_words_are_answered_before_anything_long_is_imported(tmp_path):
    code = (
        "import sys; from ortho_kernels.trainer.report.__main__ import main\n"
        "try: main()\n"
        "finally: print({'matplotlib', 'scipy', 'lightning'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert "There is no folder" in done.stderr
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(("word", "said"), [("--help", "a sweep's folder, or a folder of runs"), ("", "required: RUN")])
def test_help_says_what_to_give(capsys, word, said):
    with pytest.raises(SystemExit):
        command.main([word] if word else [])
    out, err = capsys.readouterr()
    assert said in " ".join((out + err).split())
