"""Methods, data, backbones and penalties from outside the package: chosen by import path or entry point."""

import os
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch
import yaml
from bare_runs import train
from outside_parts import Squares

from ortho_kernels.trainer import command, registry, sweep
from ortho_kernels.trainer.config import fingerprint, load_config
from ortho_kernels.trainer.config.help import help_text
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.export import export_encoder, load_encoder, load_preprocess
from ortho_kernels.trainer.methods import METHODS
from ortho_kernels.trainer.runs.pretrain import instantiate, pretrain

DOCS = Path(__file__).parents[2] / "docs" / "trainer.md"
ALL = [
    "method=outside_parts:Predicting",
    "data=outside_parts:Noise",
    "backbone=outside_parts:Flat",
    "penalty=outside_parts:SumOfSquares",
    "penalty.gamma=0.01",
]
SHORT = ["trainer.batch_size=16", "trainer.max_steps=3", "trainer.log_every=1", "trainer.checkpoint_every=1"]


@pytest.fixture(autouse=True)
def _without_report(monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.pretrain.write_report", lambda path, runs: None)
    monkeypatch.setattr(sweep, "write_report", lambda path, runs, missing: None)


def blocks(language):
    """Of the part of the page that is about components from outside."""
    part = DOCS.read_text().partition("## A method of your own")[2]
    return re.findall(rf"```{language}\n(.*?)```", part, re.DOTALL)


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The modules of the documentation, in the current folder."""
    method, data = blocks("python")
    (tmp_path / "direct_clr.py").write_text(method)
    (tmp_path / "stripes.py").write_text(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(folder):
    return read_checkpoint(checkpoint_files(folder / "checkpoints")[0])["state_dict"]


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name


def test_the_documented_method_trains_resumes_and_is_exported(documented, monkeypatch):
    [shell] = blocks("sh")
    _, words = (line.removeprefix("python -m ortho_kernels.trainer ").split() for line in shell.strip().split("\n"))
    words += ["trainer.checkpoint_every=10", "evaluation.train_images=60", "evaluation.test_images=40"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(DOCS.parents[1])}
    subprocess.run([sys.executable, "-m", "ortho_kernels.trainer", *words], env=environment, check=True, timeout=240)
    [folder] = (documented / "runs").iterdir()
    whole = weights(folder)
    (folder / "results.json").unlink()
    (folder / "checkpoints" / "step-000000020.ckpt").unlink()
    monkeypatch.syspath_prepend(documented)
    command.main([*words, "resume=auto"])
    assert [path.name for path in (documented / "runs").iterdir()] == [folder.name]
    assert_same_weights(weights(folder), whole)
    export_encoder(folder, documented / "encoder.safetensors")
    assert load_encoder(documented / "encoder.safetensors")(torch.zeros(3, 1, 8, 8)).shape == (3, 32)


def test_the_documented_method_is_short_and_has_its_own_help_and_errors(documented, monkeypatch):
    monkeypatch.syspath_prepend(documented)
    assert len(blocks("python")[0].splitlines()) <= 40
    said = " ".join(help_text(["method=direct_clr:DirectCLR", "method.dimensions=16"]).split())
    assert "method (direct_clr:DirectCLR)" in said
    assert "method.dimensions=16 features that the loss sees (integer, at least 1)" in said
    assert "method.temperature=0.1 divides the cosines (number, more than 0)" in said
    said = " ".join(help_text(["backbone=outside_parts:Flat"]).split())
    assert "backbone.activation=RELU after the layer (one of RELU, TANH)" in said
    assert "backbone.layer.bias=true the layer adds one (true or false)" in said
    config = load_config(["method=direct_clr:DirectCLR", "method.dimensions=33", "data=digits", "backbone.width=4"])
    with pytest.raises(TrainerError, match=r"method.dimensions=33 must be at most 32"):
        train(ALONE, config)


def test_the_documented_data_set_can_be_learned(documented, monkeypatch):
    monkeypatch.syspath_prepend(documented)
    words = ["data=stripes:Stripes", "data.pictures=20", "method=simclr", "method.hidden=8", "backbone.width=2"]
    folder = pretrain(load_config([*words, *SHORT]))
    assert (folder / "results.json").exists()


def test_a_run_with_nothing_of_the_trainers_own_resumes_to_the_same_bits_and_is_exported(tmp_path):
    words = [*ALL, *SHORT, "method.temperature=0.2", "backbone.width=7", f"runs={tmp_path / 'runs'}"]
    words += ["backbone.activation=TANH", "backbone.layer.bias=false", "backbone.log=elsewhere.log"]
    config = load_config(words)
    folder = pretrain(config)
    whole = weights(folder)
    checkpoint = checkpoint_files(folder / "checkpoints")[0]
    configuration = read_checkpoint(checkpoint)["configuration"]  # by weights_only
    assert [configuration[group]["name"] for group in ("method", "data", "backbone", "penalty")] == [
        f"outside_parts:{name}" for name in ("Predicting", "Noise", "Flat", "SumOfSquares")
    ]
    assert configuration["method"]["temperature"] == 0.2
    assert (configuration["backbone"]["activation"], configuration["backbone"]["log"]) == ("TANH", "elsewhere.log")
    assert yaml.safe_load((folder / "config.yaml").read_text())["backbone"] == configuration["backbone"]
    (folder / "results.json").unlink()
    checkpoint.unlink()
    assert pretrain(load_config([*words, f"resume={folder}"])) == folder
    assert_same_weights(weights(folder), whole)
    with pytest.raises(TrainerError, match=r"method.temperature: 0.2 -> 0.3"):
        pretrain(load_config([*words, "method.temperature=0.3", f"resume={folder}"]))

    file = tmp_path / "encoder.safetensors"
    export_encoder(folder, file)
    encoder, preprocess = load_encoder(file), load_preprocess(file)
    images = torch.randn(2, preprocess.channels, preprocess.size, preprocess.size)
    expected = torch.tanh(images.flatten(1) @ whole["method.encoder.network.1.weight"].T)
    torch.testing.assert_close(encoder(images), expected)


def test_a_class_of_the_trainers_own_can_be_derived_from():
    config = load_config(["backbone=outside_parts:Narrow"])
    assert config.penalty.gamma == 1e-6
    [own, derived] = (
        instantiate(load_config(words).backbone).build(1, 8).state_dict()
        for words in (["backbone.width=4"], ["backbone=outside_parts:Narrow"])
    )
    assert {name: weight.shape for name, weight in derived.items()} == {
        name: weight.shape for name, weight in own.items()
    }
    assert instantiate(load_config(["backbone=outside_parts:Narrow", "backbone.width=64"]).backbone).library_network(
        1, 8
    )


def test_a_penalty_by_autograd_has_no_step_of_its_own():
    """The one that it would inherit is SO's."""
    layer = torch.nn.Linear(4, 3)
    with pytest.raises(NotImplementedError, match="Squares has no step of its own: add its gradient"):
        Squares(layer).step_(torch.optim.SGD(layer.parameters(), lr=0.1))


def test_the_penalty_and_the_path_are_part_of_what_a_run_is(tmp_path):
    runs = f"runs={tmp_path}"
    first = train(ALONE, load_config([*ALL, *SHORT, runs]))
    baseline = train(ALONE, load_config([*ALL, *SHORT, runs, "penalty.gamma=0"]))
    assert not torch.equal(*(weights(run)["method.encoder.network.1.weight"] for run in (first, baseline)))
    bare = load_config([*ALL, *SHORT, runs, "method=outside_parts:Bare"])
    assert fingerprint(bare) != fingerprint(load_config([*ALL, *SHORT, runs]))
    assert train(ALONE, bare) not in (first, baseline)


def test_two_processes_train_as_one(tmp_path):
    """The configuration, pickled, finds the classes in the new processes, as those of a sweep do."""
    words = [*ALL, *SHORT, "trainer.precision=64-true"]
    one = train(ALONE, load_config([*words, f"runs={tmp_path / 'one'}"]))
    config = load_config([*words, "trainer=ddp", f"runs={tmp_path / 'two'}"])
    two = launch_processes(2, "gloo", 60.0, partial(train, config=config))
    ours, theirs = weights(two), weights(one)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-9, rtol=1e-7)


def test_a_sweep_takes_methods_from_inside_and_outside(tmp_path, capsys):
    words = [*ALL[1:], *SHORT, f"runs={tmp_path}", "resume=auto"]
    command.main(["-m", "method=outside_parts:Predicting,outside_parts:Bare,simclr", *words])
    said = capsys.readouterr().out
    [folder] = tmp_path.glob("sweep-*")
    rows = (folder / "sweep.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["outside_parts:Predicting", "outside_parts:Bare", "simclr"]
    assert "\nmethod=outside_parts:Bare " in said
    command.main(["-m", "method=outside_parts:Bare,simclr", *words])
    assert capsys.readouterr().out.count("is finished already") == 2


@pytest.fixture
def installed(monkeypatch):
    """Entry points as installed packages would declare them."""

    def install(**values):
        declared = [EntryPoint(name, value, "ortho_kernels.methods") for name, each in values.items() for value in each]
        monkeypatch.setattr(registry, "entry_points", lambda **wanted: EntryPoints(declared).select(**wanted))

    return install


def test_an_entry_point_is_a_name_like_any_other(installed, tmp_path):
    installed(predicting=["outside_parts:Predicting"], byol=["outside_parts:Bare"])
    config = load_config([*ALL, *SHORT, "method=predicting", "method.hidden=3", f"runs={tmp_path}"])
    assert (config.method.name, config.method.hidden) == ("predicting", 3)
    assert weights(train(ALONE, config))["method.predictor.0.weight"].shape == (3, 5)
    assert "swav | vicreg | predicting" in " ".join(help_text([]).split())
    assert (
        load_config(["method=byol"]).method.momentum == METHODS["byol"].Settings().momentum
    )  # the trainer's own first
    with pytest.raises(
        TrainerError, match=r"no method=predictin. Did you mean predicting\? Valid: .*, predicting\. Or"
    ):
        load_config(["method=predictin"])


def test_a_name_that_two_packages_give_is_refused(installed):
    installed(mine=["outside_parts:Predicting", "elsewhere:Predicting"])
    with pytest.raises(
        TrainerError, match=r"this name to elsewhere:Predicting and outside_parts:Predicting\. Give one"
    ):
        load_config(["method=mine"])


def test_an_entry_point_that_is_wrong_says_what_is(installed):
    installed(mine=["outside_parts:Missing"], module=["outside_parts"])
    with pytest.raises(TrainerError, match="method=mine: the module outside_parts has no Missing"):
        load_config(["method=mine"])
    with pytest.raises(TrainerError, match=r"method=module: outside_parts is not an import path\. Give MODULE:CLASS"):
        load_config(["method=module"])


HOME = r"ortho_kernels\.trainer\."


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=no_such_module:Mine"], r"method=no_such_module:Mine: there is no module no_such_module\. Run in the"),
        (
            ["data=outside_parts.inner:Mine"],
            r"data=outside_parts\.inner:Mine: there is no module outside_parts\.inner\.",
        ),
        (["method=outside_parts:Predicing"], r"the module outside_parts has no Predicing\. Did you mean Predicting\?"),
        (["method=outside_parts:"], r"outside_parts: is not an import path\. Give MODULE:CLASS, such as my_package"),
        (["method=outside parts:Mine"], r"outside parts:Mine is not an import path"),
        (
            ["method=outside_parts:function"],
            rf"it is not a class but of type function\. .* from {HOME}methods\.Method\.",
        ),
        (["method=outside_parts:Unrelated"], rf"the class is not a Method\. Derive it from {HOME}methods\.Method\."),
        (["data=outside_parts:Predicting"], rf"the class is not a Source\. Derive it from {HOME}data\.Source\."),
        (["backbone=torch.nn:Linear"], rf"the class is not a Backbone\. Derive it from {HOME}backbones\.Backbone\."),
        (["penalty=outside_parts:Squares"], rf"not a Penalty\. Derive it from {HOME}engine\.penalties\.Penalty\."),
        (["method=outside_parts:NoForward"], r"the class does not define forward\."),
        (["data=outside_parts:NoLoad"], r"the class does not define load\."),
        (["method=outside_parts:UndecoratedSettings"], r"Settings is not a dataclass, .* Write @dataclass above it\."),
        (["method=outside_parts:ForeignSettings"], r"its Settings are not MethodSettings\. Derive them from"),
        (["method=outside_parts:TensorSettings"], r"TensorSettings\.Settings holds what no option can be \(.*Tensor"),
        (["method=outside_parts:WrongDefault"], r"method\.temperature must be more than 0; got 0\.0\."),
        (
            ["method=outside_parts:Predicting", "method.temperature=0"],
            r"method\.temperature must be more than 0; got 0",
        ),
        (
            ["method=outside_parts:Predicting", "method.target=moving"],
            r"method\.target must be one of stopped, free; got moving\.",
        ),
        (["method=outside_parts:Predicting", "method.hidden=many"], r"method\.hidden: Value 'many'"),
        (["backbone=outside_parts:Flat", "backbone.activation=ELU"], r"backbone\.activation: .* one of \[RELU, TANH\]"),
        (
            ["method=outside_parts:Predicting", "method.temprature=1"],
            r"no option method\.temprature\. Did you mean method\.temp",
        ),
        (
            ["data=outside_parts:Noise", "data.views.grey=1"],
            r"no option data\.views\.grey\. Did you mean data\.views\.gray\?",
        ),
        (["method=outside_parts:Predicting,outside_parts:Bare"], r"names several values: give -m"),
        (["method=outside_parts:Predicting", "method.name=byol"], r"method\.name=byol: .* Give method=byol\."),
        (["penalty=outside_parts:SumOfSquares"], r"has no gamma of the paper's: give penalty\.gamma=NUMBER\."),
    ],
)
def test_mistakes_are_answered_in_one_line(words, said):
    with pytest.raises(TrainerError, match=said) as caught:
        load_config(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method=outside_parts:LossAlone", r"LossAlone\.forward gives Output\(loss, projections\); got a Tensor\."),
        (
            "data=outside_parts:ListOfPictures",
            r"data=outside_parts:ListOfPictures: load gives Splits \(of .*\); got list\.",
        ),
        (
            "backbone=outside_parts:NoFeatures",
            r"backbone=outside_parts:NoFeatures: the network lacks `features`, the length of its feature vectors\. Set",
        ),
        (
            "penalty=outside_parts:NoPenaltyModule",
            r"penalty=outside_parts:NoPenaltyModule: build gives an ortho_kernels\.OrthogonalityPenalty; got Identity\.",
        ),
    ],
)
def test_what_a_class_gives_is_checked(words, said):
    with pytest.raises(TrainerError, match=said):
        train(ALONE, load_config([*ALL, *SHORT, words]))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import torch\n\nscale = 1 / 0\n",
            r"raises ZeroDivisionError: division by zero \(.*broken_1\.py:3\)\. Fix it",
        ),
        ("class Mine(\n", r"raises SyntaxError: .*\(.*broken_2\.py:1\)\. Fix it there\."),
        ("import nothing_here\n", r"raises ModuleNotFoundError: No module named 'nothing_here' \(.*broken_3\.py:1\)"),
    ],
)
def test_a_module_that_cannot_be_imported_says_where(tmp_path, monkeypatch, source, said):
    monkeypatch.syspath_prepend(tmp_path)
    name = re.search(r"broken_\d", said)[0]
    (tmp_path / f"{name}.py").write_text(source)
    with pytest.raises(TrainerError, match=rf"method={name}:Mine: its module {said}") as caught:
        load_config([f"method={name}:Mine"])
    assert "\n" not in str(caught.value)
