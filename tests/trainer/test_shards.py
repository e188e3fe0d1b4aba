"""Pictures in tar shards: the same as in files, in any order, from any process; and shards that are not whole."""

import gzip
import io
import pickle
import tarfile

import pytest
import torch
from PIL import Image

from ortho_kernels.trainer.data import shards as shards_module
from ortho_kernels.trainer.data.encoded import EncodedImages
from ortho_kernels.trainer.data.imagefolder import ImageFolder
from ortho_kernels.trainer.data.left_out import LeftOut
from ortho_kernels.trainer.data.shard_names import find_shards, names_shards
from ortho_kernels.trainer.data.shards import index_shards
from ortho_kernels.trainer.data.stream import BatchStream, Order
from ortho_kernels.trainer.errors import TrainerError


def png(shade):
    content = io.BytesIO()
    Image.new("L", (8, 8), shade).save(content, "PNG")
    return content.getvalue()


def write_shard(path, members, kind=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def pattern(tmp_path):
    """Three shards as webdataset writes them, of four pictures with a class each; picture i has the shade i."""
    for shard in range(3):
        members = []
        for i in range(4 * shard, 4 * shard + 4):
            members += [(f"{i:04}.png", png(i)), (f"{i:04}.cls", b"7"), (f"{i:04}.json", b"{}")]
        write_shard(tmp_path / f"x-{shard:03}.tar", members)
    return f"{tmp_path}/x-{{000..002}}.tar"


def index(*paths, use_cut_off=False, left_out=None):
    return index_shards(paths, use_cut_off, LeftOut() if left_out is None else left_out)


def shades(pictures):
    return [pictures.open(i).getpixel((0, 0)) for i in range(len(pictures))]


def test_pictures_of_shards_are_a_source_without_labels(pattern, capsys):
    splits = ImageFolder(root=pattern, size=8).load()
    assert splits.labeled is None
    assert splits.pretraining.batch(torch.arange(12))[:, 0, 0, 0].tolist() == list(range(12))
    assert capsys.readouterr().out == (
        f"data.root={pattern}: 12 pictures without labels (tar shards). 24 files were left out: 12 .cls, 12 .json (no "
        "pictures).\n"
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_shuffled_over_all_shards_and_a_stream_goes_on_exactly(pattern, workers):
    images = ImageFolder(root=pattern, size=8, memory_gib=0).load().pretraining
    assert not images.in_memory

    def batches(position):
        stream = BatchStream(images, Order(12, 4, seed=0), batches=6, workers=workers)
        stream.load_state_dict({"position": position})
        return [pixels[:, 0, 0, 0].tolist() for pixels, _ in stream]

    whole = batches(0)
    for epoch in (whole[:3], whole[3:]):
        assert sorted(shade for batch in epoch for shade in batch) == list(range(12))
    assert any(len({shade // 4 for shade in batch}) == 3 for batch in whole)
    assert batches(4) == whole[4:]


def test_an_index_is_small_and_survives_a_pickle(pattern):
    pictures = index(*find_shards(pattern))
    chosen = pickle.loads(pickle.dumps(pictures.select(torch.tensor([11, 0, 5]))))
    assert shades(chosen) == [11, 0, 5]
    assert chosen.name(0).endswith("x-002.tar/0011.png")
    columns = (pictures.shards, pictures.headers, pictures.starts, pictures.sizes)
    assert sum(column.element_size() for column in columns) == 28  # bytes a picture


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read(tmp_path, kind):
    long = "深/" * 20 + "n" * 90 + ".png"
    names = ["./a.PNG", "b/c.png", "d.tar.png", *([long] if kind != tarfile.USTAR_FORMAT else [])]
    others = ["._a.png", ".cache/x.png", "b/.y.png", "note.txt"]
    path = write_shard(tmp_path / "x.tar", [(name, png(i)) for i, name in enumerate([*names, *others])], kind)
    with tarfile.open(path, "a", format=kind) as tar:
        folder, link = tarfile.TarInfo("folder.png"), tarfile.TarInfo("link.png")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "a.png"
        tar.addfile(folder)
        tar.addfile(link)
    left_out = LeftOut()
    pictures = index(path, left_out=left_out)
    assert shades(pictures) == list(range(len(names)))
    assert [pictures.name(i) for i in range(len(names))] == [f"{path}/{name}" for name in names]
    assert str(left_out) == "5 files were left out: 3 .png (hidden); 1 .txt (no pictures); 1 .png (no regular files)."


def test_open_files_are_few(pattern, monkeypatch):
    opened = []
    open_file = shards_module._OpenFile
    monkeypatch.setattr(shards_module, "_OpenFile", lambda path: opened.append(path) or open_file(path))
    shards_module._opened.cache_clear()
    pictures = index(*find_shards(pattern))
    assert opened == []
    assert shades(pictures) == shades(pictures) == list(range(12))
    assert len(opened) == 3


def test_a_shard_that_was_written_anew_is_read_anew(tmp_path):
    path = write_shard(tmp_path / "x.tar", [("a.png", png(1))])
    assert shades(index(path)) == [1]
    new = write_shard(tmp_path / "new.tar", [("a.png", png(2))])
    new.replace(path)
    assert shades(index(path)) == [2]


@pytest.mark.parametrize(
    ("kept", "whole", "fault"),
    [
        (lambda size: 0, 0, "empty file"),
        (lambda size: 300, 0, "truncated header"),
        (lambda size: 512 + 10, 0, "it ends within a.png"),
        (lambda size: 2048 + 30, 2, "the mark of its end is missing"),  # 1,024 bytes for each member
        (lambda size: 2048, 2, "the mark of its end is missing"),
        (lambda size: 2560 + 1, 2, "it ends within c.png"),
    ],
)
def test_a_shard_that_is_cut_off_names_itself_and_counts_what_is_whole(tmp_path, capsys, kept, whole, fault):
    path = write_shard(tmp_path / "x.tar", [(f"{letter}.png", png(i)) for i, letter in enumerate("abcd")])
    content = path.read_bytes()
    path.write_bytes(content[: kept(len(content))])
    said = rf"^{path} is cut off or damaged: {fault}\. It has {whole} whole pictures?"
    with pytest.raises(TrainerError, match=rf"{said}\. Fetch it again, or use what is whole: data\.corrupt=skip"):
        index(path)
    left_out = LeftOut()
    assert shades(index(path, use_cut_off=True, left_out=left_out)) == list(range(whole))
    assert str(left_out) == "1 file was left out: 1 .tar (cut off)."
    assert capsys.readouterr().out.startswith(f"{path} is cut off or damaged: {fault}. It has {whole} whole picture")


def test_a_damaged_header_is_no_end(tmp_path):
    path = write_shard(tmp_path / "x.tar", [("a.png", png(0)), ("b.png", png(1))])
    content = bytearray(path.read_bytes())
    content[1024 + 150] ^= 1  # in the sum of the second header
    path.write_bytes(content)
    with pytest.raises(TrainerError, match=r"the header at byte 1,024 is none\. It has 1 whole picture\."):
        index(path)


def test_a_source_stops_at_a_cut_shard_unless_it_is_told_to_skip(pattern, tmp_path):
    path = tmp_path / "x-001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(TrainerError, match=r"x-001\.tar is cut off"):
        ImageFolder(root=pattern, size=8).load()
    assert len(ImageFolder(root=pattern, size=8, corrupt="skip").load().pretraining) == 8 + 2


def test_what_is_no_plain_tar_is_refused(tmp_path):
    text = tmp_path / "text.tar"
    text.write_text("no tar" * 1000)
    with pytest.raises(TrainerError, match=r"text\.tar is no tar file"):
        index(text)
    shard = write_shard(tmp_path / "x.tar", [("a.png", png(1))])
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(TrainerError, match=r"x\.tar\.gz is compressed, so no picture in it .*Unpack it"):
        ImageFolder(root=str(tmp_path / "x.tar.gz")).load()
    shard.write_bytes(gzip.compress(b"".join(bytes([i % 256]) * 97 for i in range(999)), compresslevel=0))
    with pytest.raises(TrainerError, match=r"x\.tar is compressed"):
        index(shard)


def test_shards_without_pictures_are_refused(tmp_path):
    write_shard(tmp_path / "x.tar", [("a.txt", b"text"), ("a.cls", b"1")])
    with pytest.raises(TrainerError, match=r"no pictures in these shards\. 2 files were left out: 1 \.cls, 1 \.txt"):
        ImageFolder(root=str(tmp_path / "x.tar")).load()


def test_a_broken_picture_of_a_shard_is_named(tmp_path):
    path = write_shard(tmp_path / "x.tar", [("a.png", png(1)), ("图.png", png(2)[:40]), ("c.png", b"")])
    images = EncodedImages(index(path), torch.full((3,), -1), 8)
    with pytest.raises(TrainerError, match=r"x\.tar/图\.png: .* Write its shard again, or leave out what is broken"):
        images.read(torch.tensor([1]))
    splits = ImageFolder(root=str(path), size=8).load()
    assert len(splits.pretraining) == 1
    assert sorted(name.rpartition("/")[2] for name in splits.broken) == ["c.png", "图.png"]


def test_long_indexing_says_how_far_it_is(pattern, capsys, monkeypatch):
    for name, value in (("BLOCK", 4), ("FIRST_SECONDS", 0.0), ("LINE_SECONDS", 0.0)):
        monkeypatch.setattr(shards_module, name, value)
    index(*find_shards(pattern))
    assert "Indexing shards: 8 pictures, in shard 2 ...\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("x-{000..002}.tar", ["x-000", "x-001", "x-002"]),
        ("x-{8..10}.tar", ["x-8", "x-9", "x-10"]),
        ("x-{08..10}.tar", ["x-08", "x-09", "x-10"]),
        ("x-{b,a}{1..2}.tar", ["x-b1", "x-b2", "x-a1", "x-a2"]),
        ("x-{c,{0..1}}.tar", ["x-c", "x-0", "x-1"]),
        ("b.tar,a.tar,b.tar", ["b", "a"]),
        ("x-{2..0}.tar", ["x-2", "x-1", "x-0"]),
    ],
)
def test_patterns_are_expanded_as_by_a_shell(tmp_path, monkeypatch, pattern, names):
    monkeypatch.chdir(tmp_path)
    assert names_shards(pattern)
    for name in names:
        (tmp_path / f"{name}.tar").touch()
    assert [str(path) for path in find_shards(pattern)] == [f"{name}.tar" for name in names]


def test_a_list_of_shards_may_be_long(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"{'y' * 50}-{i}.tar" for i in range(20)]
    for name in names:
        write_shard(tmp_path / name, [("a.png", png(1))])
    assert len(ImageFolder(root=",".join(names), size=8).load().pretraining) == 20


def test_a_star_finds_what_is_there_in_the_order_of_names(pattern, tmp_path):
    assert [path.name for path in find_shards(f"{tmp_path}/x-*.tar")] == ["x-000.tar", "x-001.tar", "x-002.tar"]
    for name in ("y-[1].tar", "y-{1}.tar", "y,1.tar"):  # names that are there
        (tmp_path / name).touch()
        assert [path.name for path in find_shards(f"{tmp_path}/{name}")] == [name]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "x-{000..004}.tar",
            r"^2 of the 5 shards that data\.root=\S+ names are missing: \S+x-003\.tar, \S+x-004\.tar\.",
        ),
        ("x-{000..999}.tar", r"^997 of the 1,000 shards .* x-005\.tar, \.\.\.|\.\.\. Bring them here"),
        ("z*.tar", "no file is named so"),
        ("x-{000..002.tar", "a brace is not closed"),
        ("x-{a}.tar", r"\{a\} is neither a range such as \{000\.\.031\} nor a choice"),
    ],
)
def test_patterns_that_mean_nothing_are_explained(pattern, tmp_path, name, said):
    with pytest.raises(TrainerError, match=said):
        ImageFolder(root=f"{tmp_path}/{name}").load()


def test_a_folder_of_shards_says_how_to_read_them(pattern, tmp_path):
    with pytest.raises(
        TrainerError, match=r"holds no pictures at any depth.*For tar shards give data\.root='\S+/\*\.tar'"
    ):
        ImageFolder(root=str(tmp_path)).load()
