"""evaluation.data: scores on other labeled pictures than those of pretraining, or none."""

import json

import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.config import evaluation_source, load_config
from ortho_kernels.trainer.data import MemoryImages, Splits
from ortho_kernels.trainer.data.recolored import recolor
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.runs.judged import load_judged

SMALL = ["method=simclr", "data.size=8", "trainer.batch_size=8"]


@pytest.fixture
def pictures(tmp_path):
    """Twenty pictures in color, without labels."""
    (tmp_path / "pictures").mkdir()
    for i in range(20):
        Image.effect_noise((12, 10), 60 + i).convert("RGB").save(tmp_path / "pictures" / f"{i:02}.png")
    return tmp_path / "pictures"


def results_of(run):
    return json.loads((run / "results.json").read_text())


def test_color_is_scored_on_gray_pictures_of_another_source(pictures, run_tiny):
    run = run_tiny("data=imagefolder", f"data.root={pictures}", "evaluation.data=digits", *SMALL)
    results = results_of(run)
    assert (results["train_size"], results["train_images"], results["test_images"]) == (20, 60, 40)
    assert 0.3 < results["raw_pixels_knn"] <= 1  # digits are easy
    assert results["chance"] < 0.3
    assert results["representation_images"] == 40


def test_gray_is_scored_on_a_folder_in_color(folder, run_tiny):
    options = f"evaluation.options={{root: {folder}, memory_gib: 0}}"
    run = run_tiny("data=digits", "evaluation.data=imagefolder", options, *SMALL)
    results = results_of(run)
    assert (results["train_images"], results["test_images"]) == (6, 4)
    assert results["settings"]["evaluation.options.root"] == str(folder)
    assert results["chance"] == 0.5


def test_broken_pictures_of_the_other_source_are_listed_too(folder, run_tiny, pictures):
    (folder / "train" / "ant" / "0.png").write_bytes(b"")
    (pictures / "00.png").write_bytes(b"")
    words = ["evaluation.data=imagefolder", f"evaluation.options.root={folder}"]
    own = ["data=imagefolder", f"data.root={pictures}", *SMALL]
    with pytest.raises(TrainerError, match=r"ant/0\.png"):
        run_tiny(*own, *words)
    assert not list((folder / "runs").glob("*/*"))
    run = run_tiny(*own, *words, "evaluation.options.corrupt=skip")
    assert results_of(run)["train_images"] == 5
    assert results_of(run)["left_out"] == {"broken": {".png": 2}}
    assert len((run / "broken_pictures.txt").read_text().splitlines()) == 2


def test_none_gives_no_scores(run_tiny):
    results = results_of(run_tiny("data=digits", "evaluation.data=none", *SMALL))
    assert "knn" not in results
    assert results["representation_images"] == 40


def test_without_a_word_the_runs_own_pictures_are_scored(run_tiny):
    results = results_of(run_tiny("data=digits", *SMALL))
    assert {"knn", "linear_probe"} <= results.keys()


def test_its_pictures_have_the_sides_of_the_runs():
    own = ["data=imagefolder", "data.root=pictures", "data.size=64", "evaluation.data=imagefolder"]
    source = evaluation_source(load_config(own))
    assert (source.size, source.decode_size) == (64, 64)
    source = evaluation_source(load_config([*own, "data.decode_size=80"]))
    assert (source.size, source.decode_size) == (64, 80)
    source = evaluation_source(load_config([*own, "evaluation.options={decode_size: 16, root: there}"]))
    assert (source.size, source.decode_size, source.root) == (64, 16, "there")
    assert evaluation_source(load_config(["data=digits", "evaluation.data=none"])) is None
    outside = ["evaluation.data=outside_parts:Noise", "evaluation.options.pictures=9"]
    source = evaluation_source(load_config(["data=digits", *outside]))
    assert (source.name, source.size, source.pictures) == ("outside_parts:Noise", 8, 9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.data=imagefoldr"], "There is no evaluation.data=imagefoldr. Did you mean imagefolder?"),
        (["evaluation.data=imagefolder", "evaluation.options={rot: x}"], "has no option rot. Did you mean root?"),
        (["evaluation.data=imagefolder", "evaluation.options={name: x}"], "has no option name."),
        (["evaluation.data=imagefolder", "evaluation.options={size: big}"], "evaluation.options.size: Value 'big'"),
        (
            ["evaluation.data=imagefolder", "evaluation.options={memory_gib: -1}"],
            "evaluation.options.memory_gib must be",
        ),
        (["evaluation.options={root: x}"], "evaluation.options are those of the source that evaluation.data names"),
        (["evaluation.data=none", "evaluation.options={root: x}"], "give evaluation.data too"),
    ],
)
def test_wrong_words_are_answered_before_any_picture_is_read(words, said):
    with pytest.raises(TrainerError) as caught:
        load_config(["data=digits", *words])
    assert said in str(caught.value)


def test_a_source_without_labels_gives_no_scores(pictures, tiny):
    config = tiny("data=digits", "evaluation.data=imagefolder", f"evaluation.options.root={pictures}")
    with pytest.raises(TrainerError, match=r"evaluation\.data=imagefolder: these pictures give no scores"):
        load_judged(config, Splits(), ALONE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluation.data=huggingface"], "^evaluation.data=huggingface needs evaluation.options.dataset=NAME"),
        (["evaluation.data=imagefolder"], "^evaluation.data=imagefolder needs evaluation.options.root=FOLDER"),
        (["evaluation.data=imagefolder", "evaluation.options.root=data.tar"], "evaluation.options.root=data.tar"),
        (["evaluation.data=imagefolder", "evaluation.options.root={folder}"], "evaluation.options.corrupt=skip"),
    ],
)
def test_the_other_source_speaks_of_its_own_options(folder, tiny, words, said):
    """`data.root` and `data.corrupt` would change the pictures of pretraining."""
    (folder / "train" / "ant" / "0.png").write_bytes(b"")
    config = tiny("data=digits", *SMALL, *(word.format(folder=folder) for word in words))
    with pytest.raises(TrainerError, match=said) as caught:
        load_judged(config, Splits(unlabeled=MemoryImages(torch.zeros(2, 1, 8, 8), torch.zeros(2))), ALONE)
    assert "data.root" not in str(caught.value)


def test_other_channels_than_gray_and_color_are_refused(folder, tiny):
    images = MemoryImages(torch.zeros(4, 4, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    config = tiny("data=digits", "evaluation.data=imagefolder", f"evaluation.options.root={folder}")
    with pytest.raises(TrainerError, match=r"has pictures of 3 channels, and the run's have 4\. Only gray and color"):
        load_judged(config, Splits(images), ALONE)


def test_gray_and_color_become_each_other_as_by_pil():
    color = torch.randint(256, (1, 3, 50, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(color[0].permute(1, 2, 0).numpy()).convert("L")
    gray = recolor(color, 1)
    assert gray.flatten().tolist() == list(image.tobytes())
    assert list(image.convert("RGB").tobytes()) == recolor(gray, 3)[0].permute(1, 2, 0).flatten().tolist()
    assert recolor(color, 3) is color
