"""data.root=FILE.txt: which pictures a list names, and what is said of one that is none."""

import os

import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.data.imagefolder import ImageFolder
from ortho_kernels.trainer.data.left_out import LeftOut
from ortho_kernels.trainer.data.picture_lists import read_list
from ortho_kernels.trainer.errors import TrainerError


@pytest.fixture
def pictures(tmp_path):
    for name in ("a.png", "图 片/b c.png", "#d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((9, 9), 60).save(tmp_path / name)
    return tmp_path


def listed(folder, content, skip=False, left_out=None):
    (folder / "list.txt").write_bytes(content)
    found = read_list(folder / "list.txt", skip, LeftOut() if left_out is None else left_out)
    return [os.path.relpath(found.name(i), folder) for i in range(len(found))]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_list_may_come_from_any_system(pictures, mark, end):
    lines = [b"a.png", b"# a comment", b"", b"  ./#d.png ", "图 片/b c.png".encode(), str(pictures / "a.png").encode()]
    left_out = LeftOut()
    assert listed(pictures, mark + end.join(lines), left_out=left_out) == ["a.png", "#d.png", "图 片/b c.png"]
    assert str(left_out) == "1 file was left out: 1 .png (listed twice)."


def test_a_path_that_is_written_otherwise_comes_again(pictures):
    lines = [b"a.png", b"./a.png", "图 片/../a.png".encode(), str(pictures / "a.png").encode()]
    left_out = LeftOut()
    assert listed(pictures, b"\n".join(lines), left_out=left_out) == ["a.png"]
    assert str(left_out) == "3 files were left out: 3 .png (listed twice)."


def test_files_that_are_missing_are_counted_and_the_first_are_named(pictures):
    lines = b"a.png\n" + b"".join(b"gone%d.png\n" % i for i in range(5))
    with pytest.raises(TrainerError, match=r"^5 of the 6 files that data\.root=\S+ lists are missing: ") as caught:
        listed(pictures, lines)
    assert str(caught.value).count("gone") == 3
    assert "data.corrupt=skip" in str(caught.value)
    left_out = LeftOut()
    assert listed(pictures, lines, skip=True, left_out=left_out) == ["a.png"]
    assert str(left_out) == "5 files were left out: 5 .png (missing)."
    with pytest.raises(TrainerError, match="2 of the 2 files"):  # nothing would be left
        listed(pictures, b"gone.png\nlost.png", skip=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "lists no pictures: it needs one path a line"),
        (b"# nothing\n\n", "lists no pictures"),
        ("a.png".encode("utf-16"), "is no list of pictures. A list is a text in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is no list of pictures"),
        (b"a.png 3\n", r"1 of the 1 files .* a line holds nothing else"),
    ],
)
def test_what_is_no_list_is_refused(pictures, content, said):
    with pytest.raises(TrainerError, match=said):
        listed(pictures, content)


def test_a_list_is_a_source_of_pictures_without_labels(pictures, capsys):
    (pictures / "list.txt").write_text("图 片/b c.png\na.png\n")
    splits = ImageFolder(root=str(pictures / "list.txt"), size=8).load()
    assert splits.labeled is None
    assert splits.pretraining.labels.tolist() == [-1, -1]
    assert splits.pretraining.batch(torch.arange(2)).shape == (2, 3, 8, 8)
    assert capsys.readouterr().out == f"data.root={pictures}/list.txt: 2 pictures without labels (a list).\n"
