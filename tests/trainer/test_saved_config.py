"""`config=FILE`: a config.yaml of a run is run again, and of another version it says what changed."""

import re
from pathlib import Path

import pytest
from outside_parts import Predicting

from ortho_kernels import __version__
from ortho_kernels.trainer import command, compare, sweep
from ortho_kernels.trainer.config import combinations, differing, fingerprint, flattened, identity, load_config
from ortho_kernels.trainer.config import write_config as write
from ortho_kernels.trainer.config.saved import _print_once
from ortho_kernels.trainer.errors import TrainerError

OUTSIDE = [
    "method=outside_parts:Predicting",
    "data=outside_parts:Noise",
    "backbone=outside_parts:Flat",
    "penalty=outside_parts:SumOfSquares",
    "penalty.gamma=0.01",
]


@pytest.fixture(autouse=True)
def _nothing_printed_yet():
    _print_once.cache_clear()


@pytest.fixture
def saved(tmp_path):
    """`saved(*words)`: the word for a file that a run of these words would write; `edit` replaces text in it."""

    def save(*words, edit=()):
        file = tmp_path / "config.yaml"
        write(file, load_config(words))
        for old, new in edit:
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new, 1))
        return f"config={file}"

    return save


def changed(ours, theirs):
    return differing(flattened(identity(load_config(ours))), flattened(identity(load_config(theirs))))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["penalty=none", "seed=3"],
        ["penalty=srip", "penalty.include=['layer4.*']", "trainer=fsdp2", "trainer.batch_size=64", "optimizer=lars"],
        ["experiment=paper/imagenet100/dino_vit_tiny"],
        ["backbone=timm", "backbone.options={img_size: 32}", "sweep.slurm={timeout_min: 600}"],
        [*OUTSIDE, "backbone.activation=TANH", "backbone.layer.bias=false", "backbone.log=a b.log"],
    ],
)
def test_a_configuration_is_the_same_when_it_is_run_again(saved, words, capsys):
    before = load_config(words)
    again = load_config([saved(*words)])
    assert again == before
    assert fingerprint(again) == fingerprint(before)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["seed=7"], {"seed"}),
        (["method.hidden=9", "trainer.batch_size=8"], {"method.hidden", "trainer.batch_size"}),
        (["trainer=ddp"], {"trainer.strategy"}),  # and the batch stays
        (["trainer=cpu"], {"trainer.accelerator"}),
        (["trainer=default"], set()),
        (["backbone=resnet50"], {"backbone.name", "backbone.width"}),  # of which the file's width is no part
        (["optimizer=sgd"], {"optimizer.lr"}),  # anew, with its defaults
        (["penalty=none"], {"penalty.gamma"}),
        (["resume=auto", "title=another"], set()),
    ],
)
def test_further_words_stand_over_the_file(saved, words, keys):
    theirs = ["method=byol", "method.hidden=32", "backbone.width=8", "optimizer.lr=0.1", "trainer.batch_size=64"]
    theirs += ["trainer.max_steps=5", "title=mine", "note=none"]
    file = saved(*theirs)
    assert changed([file, *words], theirs) == keys
    assert load_config([file, *words]).trainer.max_steps == 5


def test_another_part_takes_its_own_defaults(saved):
    file = saved("method=byol", "method.hidden=32", "penalty=srip", "penalty.gamma=0.5")
    assert changed([file, "method=simclr"], ["method=simclr", "penalty=srip", "penalty.gamma=0.5"]) == set()
    assert load_config([file, "penalty=so"]).penalty.gamma == 1e-6
    assert load_config([file, "penalty=none"]).penalty.gamma == 0


def test_what_belongs_to_one_run_is_not_taken_over(saved):
    again = load_config([saved("resume=auto", "title=mine", "note=hers", "runs=there")])
    assert (again.resume, again.title, again.note, again.runs) == (None, None, None, "there")


def test_sweeps_comparisons_and_help_take_a_file(saved, monkeypatch, capsys):
    file = saved("data=digits", "penalty=srip", "backbone.width=2")
    seen = []
    monkeypatch.setattr(sweep, "sweep", lambda varied, configs: seen.extend(configs))
    command.main(["-m", file, "seed=0,1", "penalty=none,so"])
    assert [(config.seed, config.penalty.gamma) for config in seen] == [(0, 0), (0, 1e-6), (1, 0), (1, 1e-6)]
    assert {config.backbone.width for config in seen} == {2}
    assert seen[1].title == "seed=0, penalty=so"
    monkeypatch.setattr(compare, "compare", lambda *configs: seen.extend(configs))
    compare.main([file])
    assert [config.penalty.gamma for config in seen[-2:]] == [0, 1e-3]
    command.main(["--help", file, "method=simclr"])
    said = capsys.readouterr().out
    assert "backbone.width=2" in said
    assert "method (simclr)" in said


def test_a_sweep_over_files(saved, tmp_path):
    saved("seed=3")
    (tmp_path / "config.yaml").rename(tmp_path / "other.yaml")
    file = saved("seed=5")
    choices = combinations([f"{file},{tmp_path / 'other.yaml'}", "trainer.max_steps=1,2"])
    configs = [load_config(words) for _, words in choices]
    assert [(config.seed, config.trainer.max_steps) for config in configs] == [(5, 1), (5, 2), (3, 1), (3, 2)]
    with pytest.raises(TrainerError, match="names several files: give -m"):
        load_config([f"{file},{tmp_path / 'other.yaml'}"])


def test_the_file_names_the_version_and_new_options_are_said_once(saved, capsys):
    old = [("# ortho_kernels " + __version__, "# ortho_kernels 0.0.1"), ("  warmup: 0.05\n", ""), ("note: null\n", "")]
    file = saved("seed=4", edit=old)
    for _ in range(2):
        assert load_config([file]).optimizer.warmup == 0.05
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"was written by ortho_kernels 0.0.1; this is {__version__}. New options keep their defaults: " in said
    assert said.endswith("optimizer.warmup=0.05.\n")


def test_options_that_are_gone_are_all_listed_with_the_nearest(saved):
    file = saved(
        edit=[
            (f"# ortho_kernels {__version__}\n", ""),
            ("    gray:", "    grey:"),
            ("  neighbors:", "  neighbours:"),
            ("seed:", "quux: 3\nseed:"),
        ]
    )
    with pytest.raises(TrainerError) as caught:
        load_config([file])
    said = str(caught.value)
    assert "was written by an unknown version" in said
    assert "data.views.grey. Did you mean data.views.gray?" in said
    assert "evaluation.neighbours. Did you mean evaluation.neighbors?" in said
    assert re.search(r"\n  quux\.( Did you mean .*)?\n", said)
    # A word that takes another part leaves that part's options out.
    with pytest.raises(TrainerError) as caught:
        load_config([file, "data=digits"])
    assert "grey" not in str(caught.value)


def test_an_option_of_a_class_from_outside_that_changed_is_said(saved, monkeypatch):
    file = saved(*OUTSIDE)
    fewer = {key: value for key, value in Predicting.Settings.__dataclass_fields__.items() if key != "hidden"}
    monkeypatch.setattr(Predicting.Settings, "__dataclass_fields__", fewer)
    with pytest.raises(TrainerError, match=r"options that there are not:\n  method\.hidden\."):
        load_config([file])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", r"is no YAML \(while parsing a flow node expected the node content"),
        ("a: 1\na: 2", "is no YAML"),
        ("!!python/object/apply:os.system [exit]", "is no YAML .*could not determine a constructor"),
        ("- seed", r"names no method \(method\.name\)\. Give the config\.yaml of a run's folder"),
        ("seed", r"names no method"),
        ("", r"names no method"),
        ("method: byol", r"names no method"),
        ("# @package _global_\ntrainer: {}", r"is a recipe\. Give experiment=NAME, or the config\.yaml of a run"),
        ("defaults: [base]", "is a recipe"),
        (b"\xff\xfe", "cannot be read"),
        (None, r"cannot be read \(No such file or directory\)\. Give the config\.yaml of a run's folder"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path, text, said):
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TrainerError, match=said) as caught:
        load_config([f"config={file}"])
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(TrainerError, match=r"cannot be read \(Is a directory\)"):
        load_config([f"config={tmp_path}"])


def test_every_recipe_of_the_package_is_refused_as_one():
    from ortho_kernels.trainer.config.recipes import FILES

    for file in FILES.rglob("*.yaml"):
        with pytest.raises(TrainerError, match=r"is a recipe|names no method"):
            load_config([f"config={file}"])


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("name: byol", "name: byool"), r"config\.yaml: There is no method=byool\. Did you mean byol\?"),
        (("name: sgd", "name: sgdd"), r"config\.yaml: There is no optimizer=sgdd\. Did you mean sgd\?"),
        (("name: byol", "name: gone:Mine"), r"config\.yaml: method=gone:Mine: there is no module gone\."),
        (("batch_size: 256", "batch_size: many"), r"trainer\.batch_size: Value 'many'"),
        (("warmup: 0.05", "warmup: 7"), r"optimizer\.warmup must be between 0 and 1; got 7"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(saved, edit, said):
    with pytest.raises(TrainerError, match=said):
        load_config([saved(edit=[edit])])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["config=a.yaml", "config=b.yaml"], "give one of them"),
        (["config=a.yaml", "experiment=quick/cifar10"], "each describe a whole run"),
        (["config="], "give a file"),
        (["config=[a"], r"need quotes around it that reach the program: 'config=\"\[a\"'"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words, said):
    with pytest.raises(TrainerError, match=said):
        load_config(words)


def test_a_mistake_beside_a_file_gets_the_nearest_word(saved):
    with pytest.raises(TrainerError, match=r"no option method\.hiden\. Did you mean method\.hidden\?"):
        load_config([saved(), "method.hiden=3"])


def test_a_run_is_run_again_and_has_the_same_bits(run_tiny, tmp_path):
    from ortho_kernels.trainer.runs.pretrain import pretrain

    first = run_tiny("method=simclr", "seed=2", "title=first")
    again = pretrain(load_config([f"config={first / 'config.yaml'}"]))
    assert again != first
    assert again.parent == first.parent
    ours, theirs = ((run / "metrics.csv").read_text().splitlines()[-1].split(",")[:5] for run in (again, first))
    assert ours == theirs
    assert Path(pretrain(load_config([f"config={first / 'config.yaml'}", "resume=auto"]))) in (first, again)
