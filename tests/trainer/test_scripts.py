"""data=scripts: letters drawn from fonts, split by letter. The fonts are those that matplotlib carries."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fontTools.unicodedata import script
from PIL import Image, ImageDraw, ImageFont
from square_fonts import write_font

from ortho_kernels.trainer.data import debian_packages
from ortho_kernels.trainer.data.alphabets import Alphabet, without_lookalikes
from ortho_kernels.trainer.data.fonts import Font
from ortho_kernels.trainer.data.scripts import SCRIPTS, Scripts
from ortho_kernels.trainer.errors import TrainerError

FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf")
SOME = ["Latin", "Greek", "Cyrillic", "Armenian"]


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    import matplotlib

    folder = tmp_path_factory.mktemp("fonts")
    for name in FONTS:
        shutil.copy(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, folder)
    return folder


def source(fonts, **options):
    return Scripts(**{"root": str(fonts), "scripts": SOME, "letters": 40, "copies": 2} | options)


def test_pictures_are_of_the_classes_and_sizes_asked_for(fonts):
    splits = source(fonts, size=24).load()
    assert splits.classes == SOME
    train, test = splits.labeled
    assert train.pixels.shape[1:] == test.pixels.shape[1:] == (1, 24, 24)
    assert train.pixels.dtype == torch.uint8
    counts = [images.labels.bincount(minlength=4) for images in splits.labeled]
    assert min(counts[0].min(), counts[1].min()) > 4
    assert (counts[0] % 2 == 0).all()  # two copies of each letter
    assert (train.pixels.amax((1, 2, 3)) > 100).all()  # something is drawn on each
    assert (train.pixels[:, :, 0].amax((1, 2)) == 0).all()  # and does not touch the border
    assert "2 fonts, sha256 " in splits.origin


def test_a_letter_is_trained_on_or_tested_on_in_both_cases(fonts):
    train, test, _ = source(fonts).glyphs()
    letters = [{glyph.character.casefold() for glyph in part} for part in (train, test)]
    assert not letters[0] & letters[1]
    assert 0.2 < len(letters[1]) / len(letters[0] | letters[1]) <= 1 / 3


def test_the_class_is_the_script_that_unicode_gives_the_letter(fonts):
    codes = ["Latn", "Grek", "Cyrl", "Armn"]
    train, test, _ = source(fonts).glyphs()
    assert all(script(glyph.character) == codes[glyph.label] for glyph in (*train, *test))


def test_each_picture_is_a_function_of_the_seed_and_its_place(fonts):
    first, again, other = (source(fonts, seed=seed).load() for seed in (0, 0, 1))
    for one, same in zip(first.labeled, again.labeled, strict=True):
        assert torch.equal(one.pixels, same.pixels)
    assert first.train.pixels.shape != other.train.pixels.shape or not torch.equal(
        first.train.pixels, other.train.pixels
    )
    assert not torch.equal(first.train.pixels[0], first.train.pixels[1])  # copies of one letter


def test_more_letters_are_drawn_only_if_there_are_more(fonts):
    train, test, _ = source(fonts, scripts=["Armenian", "Greek"], letters=10).glyphs()
    counts = [sum(glyph.label == label for glyph in (*train, *test)) for label in (0, 1)]
    assert counts[0] <= 10
    assert counts[1] <= 10
    every, rest, _ = source(fonts, scripts=["Armenian", "Greek"], letters=1000).glyphs()
    assert len(every) + len(rest) > 100


def look(font, letter):
    picture = Image.new("L", (200, 200))
    ImageDraw.Draw(picture).text((50, 50), letter, 255, ImageFont.truetype(str(font.path), 96))
    return picture.crop(picture.getbbox()).tobytes()


def test_letters_of_two_scripts_that_look_alike_are_left_out(fonts):
    font = Font(fonts / "DejaVuSans.ttf")
    assert look(font, "A") == look(font, "\u0391")  # capital alpha
    alphabets = {"Latn": Alphabet(["A", "G", "R"], [font]), "Grek": Alphabet(["\u0391", "\u0393", "\u03a8"], [font])}
    left = without_lookalikes(alphabets)
    assert left["Latn"].letters == ["G", "R"]
    assert left["Grek"].letters == ["\u0393", "\u03a8"]


def test_no_two_test_letters_of_different_scripts_look_alike(fonts):
    train, test, _ = source(fonts).glyphs()
    looks = {}
    for glyph in (*train, *test):
        looks.setdefault(look(glyph.fonts[0], glyph.character), set()).add(glyph.label)
    assert max(map(len, looks.values())) == 1


def test_a_script_that_no_font_draws_is_named(fonts):
    with pytest.raises(TrainerError, match=r"no font draws a letter of Thai.*data\.scripts.*data\.root=FOLDER"):
        source(fonts, scripts=["Latin", "Thai"]).load()


def test_a_mistyped_script_is_answered(fonts):
    with pytest.raises(TrainerError, match=r"There is no script Cyrilic\. Did you mean Cyrillic"):
        source(fonts, scripts=["Cyrilic"]).load()


def test_a_script_of_too_few_letters_is_named(tmp_path):
    write_font(tmp_path / "squares.ttf", list(map(ord, "AB\u0393\u0394")))  # Latin and Greek, all alike
    with pytest.raises(TrainerError, match=r"no letter of Latin is left that looks like none of another script"):
        source(tmp_path, scripts=["Latin", "Greek"]).load()
    with pytest.raises(TrainerError, match=r"1 letter of Latin is left"):
        source(tmp_path, scripts=["Latin"]).load()


def test_a_folder_without_fonts_is_reported(tmp_path):
    with pytest.raises(TrainerError, match=r"there are no fonts \(\.otf, \.ttf\) below data\.root="):
        source(tmp_path).load()


def test_a_broken_font_is_named(tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font at all")
    with pytest.raises(TrainerError, match=r"font .*broken\.ttf cannot be read"):
        source(tmp_path).load()


def test_fonts_that_cannot_be_fetched_say_why_and_what_to_do(tmp_path, monkeypatch):
    def refuse(command, folder):
        raise subprocess.CalledProcessError(100, command, stderr="E: no server can be reached")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(debian_packages, "_run", refuse)
    monkeypatch.setattr(debian_packages.shutil, "which", lambda tool: tool)
    with pytest.raises(TrainerError, match=r"fonts-noto-core.*no server can be reached.*data\.root=FOLDER"):
        Scripts().load()
    monkeypatch.setattr(debian_packages.shutil, "which", lambda tool: None)
    with pytest.raises(TrainerError, match="apt-get is not here"):
        Scripts().load()


def test_fonts_come_from_the_debian_packages(fonts, tmp_path, monkeypatch):
    fetched = []

    def tool(command, folder):
        folder = Path(folder)
        if command[0] == "apt-get":
            fetched.append(command[-1])
            (folder / "package.deb").write_bytes(b"package")
        else:
            shutil.copytree(fonts, folder / "unpacked" / "usr" / "share" / "fonts")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(debian_packages, "_run", tool)
    monkeypatch.setattr(debian_packages.shutil, "which", lambda tool: tool)
    for _ in range(2):  # the second time they are there
        splits = Scripts(scripts=SOME, letters=20, copies=1).load()
        assert fetched == ["fonts-noto-core", "fonts-droid-fallback"]
    assert "4 fonts" in splits.origin
    assert len(list((tmp_path / "ortho_kernels" / "debian").iterdir())) == 2


def test_the_scripts_are_unicodes():
    from fontTools.unicodedata import Scripts as Names

    assert set(SCRIPTS) <= set(Names.NAMES.values())
    assert len(set(SCRIPTS)) == len(SCRIPTS) == 40
