"""data=huggingface: data sets that the library `datasets` reads from this machine. Nothing is downloaded."""

import io
import json
import pickle
import sys

import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data.huggingface import HuggingFace
from ortho_kernels.trainer.data.stream import BatchStream, Order
from ortho_kernels.trainer.errors import TrainerError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def png(shade):
    content = io.BytesIO()
    Image.new("L", (8, 8), shade).save(content, "PNG")
    return content.getvalue()


def table(shades, labels=None, names=("ant", "bee"), **columns):
    """Pictures of one shade each, as bytes; their classes in a column of that type."""
    features = {"image": datasets.Image(decode=True)}
    rows = {"image": [None if shade is None else {"bytes": png(shade), "path": None} for shade in shades]}
    if labels is not None:
        features["label"], rows["label"] = datasets.ClassLabel(names=list(names)), list(labels)
    for name, (feature, values) in columns.items():
        features[name], rows[name] = feature, values
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def load(path, **options):
    return HuggingFace(dataset=str(path), size=8, **options).load()


def shades(images):
    return images.batch(torch.arange(len(images)))[:, 0, 0, 0].tolist()


def test_a_saved_data_set_has_labels_and_a_test_split(tmp_path):
    splits = {"train": table([1, 2, 3, 4], [0, 1, 1, 0]), "test": table([5, 6], [1, 0])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    ours = load(tmp_path / "saved")
    assert (shades(ours.train), ours.train.labels.tolist()) == ([1, 2, 3, 4], [0, 1, 1, 0])
    assert (shades(ours.test), ours.test.labels.tolist()) == ([5, 6], [1, 0])
    assert ours.classes == ["ant", "bee"]
    assert ours.pretraining.in_memory


def test_pictures_are_drawn_by_workers_and_selected(tmp_path):
    table(range(12)).save_to_disk(tmp_path / "saved")
    images = load(tmp_path / "saved", memory_gib=0).pretraining
    assert not images.in_memory
    chosen = pickle.loads(pickle.dumps(images.select(torch.tensor([7, 0]))))
    assert shades(chosen) == [7, 0]
    assert chosen.sources.name(0) == f"{tmp_path}/saved, train, row 7"
    drawn = [
        [batch[:, 0, 0, 0].tolist() for batch, _ in BatchStream(images, Order(12, 4, seed=0), 3, workers)]
        for workers in (0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert sorted(shade for batch in drawn[0] for shade in batch) == list(range(12))


@pytest.mark.parametrize("labels", [None, [0, 1, 0]])
def test_without_labels_or_a_test_split_there_are_no_scores(tmp_path, capsys, labels):
    datasets.DatasetDict({"train": table([1, 2, 3], labels)}).save_to_disk(tmp_path / "saved")
    splits = load(tmp_path / "saved")
    assert splits.labeled is None
    assert shades(splits.pretraining) == [1, 2, 3]
    why = "it has no column of classes" if labels is None else "no split to test on has labels"
    assert f"3 pictures without labels ({why})" in capsys.readouterr().out


def test_a_test_split_whose_labels_are_withheld_is_no_test_set(tmp_path):
    splits = {
        "train": table([1, 2, 3, 4], [0, 1, -1, None]),
        "test": table([5, 6], [-1, -1]),
        "validation": table([7, 8, 9], [1, -1, 0]),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    ours = load(tmp_path / "saved")
    assert (shades(ours.test), ours.test.labels.tolist()) == ([7, 9], [1, 0])
    assert (shades(ours.train), ours.train.labels.tolist()) == ([1, 2], [0, 1])
    assert (shades(ours.pretraining), ours.pretraining.labels.tolist()) == ([1, 2, 3, 4], [0, 1, -1, -1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"test_split": "train"}, "these are the pictures to pretrain on"),
        ({"test_split": "withheld"}, "none of its rows has a class in the column label"),
        ({"test_split": "bare"}, "it has no column label"),
        ({"label": "image"}, r"^data\.label=image is of type Image, and classes are numbers or texts"),
        ({"config": "small"}, r"^data\.config=small: \S+ has no configurations\. Leave it out"),
    ],
)
def test_words_that_would_change_nothing_are_refused(tmp_path, options, said):
    """A split to test on that gives no scores would else show at the end of a run."""
    rows = {"train": table([1, 2], [0, 1]), "withheld": table([3, 4], [-1, -1]), "test": table([5, 6], [0, 1])}
    without_labels = rows["test"].remove_columns("label")
    for name, split in rows.items():
        split.save_to_disk(tmp_path / "saved" / name)
    without_labels.save_to_disk(tmp_path / "saved" / "bare")
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": [*rows, "bare"]}))
    with pytest.raises(TrainerError, match=said):
        load(tmp_path / "saved", **options)


def test_a_split_to_test_on_needs_a_column_of_classes(tmp_path):
    datasets.DatasetDict({"train": table([1, 2]), "test": table([3, 4])}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").labeled is None
    with pytest.raises(TrainerError, match=r"^data\.test_split=test: .*name one by data\.label=COLUMN"):
        load(tmp_path / "saved", test_split="test")


def test_labels_of_any_kind_are_taken_by_the_name_of_their_column(tmp_path):
    kind = datasets.Value("string")
    splits = {
        "train": table([1, 2, 3], what=(kind, ["owl", "bat", "owl"])),
        "test": table([4, 5], what=(kind, ["owl", "bat"])),
    }
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").labeled is None
    ours = load(tmp_path / "saved", label="what")
    assert ours.classes == ["bat", "owl"]
    assert (ours.train.labels.tolist(), ours.test.labels.tolist()) == ([1, 0, 1], [1, 0])
    splits["test"] = table([4, 5], what=(kind, ["owl", "cat"]))
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "other")
    with pytest.raises(TrainerError, match=r"data\.label=what: cat is no class of the training pictures"):
        load(tmp_path / "other", label="what")


@pytest.mark.parametrize("whole_folder", [False, True])
def test_parquet_is_read_by_file_or_folder(tmp_path, whole_folder):
    (tmp_path / "here").mkdir()
    table([1, 2, 3]).to_parquet(tmp_path / "here" / "train.parquet")
    assert shades(load(tmp_path / "here" if whole_folder else tmp_path / "here" / "train.parquet").pretraining) == [
        1,
        2,
        3,
    ]


def test_bytes_are_pictures_where_the_column_is_named(tmp_path):
    rows = datasets.Dataset.from_dict({"jpg": [png(3), png(4)], "n": [1, 2]})
    rows.save_to_disk(tmp_path / "saved")
    with pytest.raises(TrainerError, match=r"has no column of pictures; it has jpg, n\..*data\.image=COLUMN"):
        load(tmp_path / "saved")
    assert shades(load(tmp_path / "saved", image="jpg").pretraining) == [3, 4]
    with pytest.raises(TrainerError, match=r"data\.image=n: the column holds no pictures"):
        load(tmp_path / "saved", image="n")
    with pytest.raises(TrainerError, match=r"data\.image=x: data\.dataset=\S+ has the columns jpg, n"):
        load(tmp_path / "saved", image="x")


def test_of_several_columns_one_has_to_be_chosen(tmp_path):
    masks = datasets.Image(), [{"bytes": png(9), "path": None}] * 2
    table([1, 2], mask=masks).save_to_disk(tmp_path / "saved")
    with pytest.raises(
        TrainerError, match=r"several columns of that kind, image, mask: give one .* data\.image=COLUMN"
    ):
        load(tmp_path / "saved")
    assert shades(load(tmp_path / "saved", image="image").pretraining) == [1, 2]


def test_a_local_folder_of_pictures_is_read(folder):
    splits = load(folder)
    assert splits.classes == ["ant", "bee"]
    assert len(splits.train) == 6
    assert len(splits.test) == 4


def test_broken_rows_are_named_and_skipped_without_labels(tmp_path, capsys):
    table([1, None, 3]).save_to_disk(tmp_path / "saved")
    assert shades(load(tmp_path / "saved").pretraining) == [1, 3]
    assert "saved, train, row 1: " in capsys.readouterr().err
    with pytest.raises(TrainerError, match=r"saved, train, row 1: .*data\.corrupt=skip"):
        load(tmp_path / "saved", corrupt="stop")


def test_a_run_of_a_data_set_without_labels(tmp_path, run_tiny):
    table(range(20)).save_to_disk(tmp_path / "saved")
    run = run_tiny("data=huggingface", f"data.dataset={tmp_path / 'saved'}", "data.size=8", "method=simclr")
    assert (run / "results.json").exists()


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    splits = {"train": table([1, 2], [0, 1]), "extra": table([1, 2], [0, 1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    with pytest.raises(TrainerError, match=r"data\.split=trian: .* has the splits train, extra\. Did you mean train\?"):
        load(tmp_path / "saved", split="trian")
    with pytest.raises(TrainerError, match=r"data\.test_split=tset: .* has the splits train, extra"):
        load(tmp_path / "saved", test_split="tset")
    assert len(load(tmp_path / "saved", split="extra").pretraining) == 2


@pytest.mark.parametrize("name", ["nobody/nothing", "nowhere"])
def test_a_name_that_cannot_be_reached_says_what_to_do_offline(name):
    with pytest.raises(
        TrainerError, match=rf"data\.dataset={name} could not be loaded \(.*Without a network give a folder"
    ):
        load(name)
    with pytest.raises(TrainerError, match=r"data=huggingface needs data\.dataset=NAME"):
        HuggingFace().load()


def test_without_the_library_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TrainerError, match="data=huggingface needs the package datasets: pip install datasets"):
        load("cifar10")


def test_the_name_of_a_data_set_is_not_that_of_the_choice():
    with pytest.raises(TrainerError, match=r"data\.name=cats: give the name of a data set by data\.dataset=cats"):
        load_config(["data=huggingface", "data.name=cats"])
    assert load_config(["data=huggingface", "data.dataset=cats"]).data.name == "huggingface"
