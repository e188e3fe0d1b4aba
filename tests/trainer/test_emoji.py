"""data=emoji: emoji drawn from a color font, split by emoji. The font is made here: a square in one color for each."""

import pytest
import torch
from square_fonts import write_font

from ortho_kernels.trainer.data.emoji import GROUPS, Emoji, read_groups
from ortho_kernels.trainer.errors import TrainerError

LISTED = """\
# emoji-test.txt
# Version: 15.0

# group: Smileys & Emotion
# subgroup: face-smiling
1F600      ; fully-qualified     # 😀 E1.0 grinning face
263A FE0F  ; fully-qualified     # ☺️ E0.6 smiling face
263A       ; unqualified         # ☺ E0.6 smiling face

# group: People & Body
1F44B            ; fully-qualified # 👋 E0.6 waving hand
1F44B 1F3FB      ; fully-qualified # 👋🏻 E1.0 waving hand: light skin tone

# group: Component
1F3FB      ; component           # 🏻 E1.0 light skin tone
"""
PER_GROUP = 6


def write_list(path, per_group=PER_GROUP):
    """Some emoji of each group; numbered from the start of the private characters."""
    lines = ["# Version: 15.0"]
    for number, group in enumerate(GROUPS):
        lines.append(f"# group: {group}")
        lines += [f"{0xE000 + 16 * number + i:04X} ; fully-qualified # x E0 name" for i in range(per_group)]
    path.write_text("\n".join(lines) + "\n")


def write_emoji_font(path, in_color=True, groups=8):
    """Each emoji is a square, whose color is that of its group."""
    codes = [0xE000 + 16 * number + i for number in range(groups) for i in range(PER_GROUP)]
    colors = [(number / 10, 1 - number / 10, 0.5) for number in range(groups) for _ in range(PER_GROUP)]
    write_font(path, codes, colors if in_color else None)


@pytest.fixture
def folder(tmp_path):
    write_emoji_font(tmp_path / "squares.ttf")
    write_list(tmp_path / "emoji-test.txt")
    return tmp_path


def test_groups_are_those_of_unicodes_list():
    assert read_groups(LISTED) == {"Smileys & Emotion": ["\U0001f600", "\u263a"], "People & Body": ["\U0001f44b"]}


def test_pictures_are_in_the_colors_of_the_font(folder):
    splits = Emoji(root=str(folder), size=40, copies=3).load()
    assert splits.classes == GROUPS
    for images, each in zip(splits.labeled, (3 * 4, 2), strict=True):
        assert images.labels.bincount().tolist() == [each] * len(GROUPS)
        assert images.pixels.shape[1:] == (3, 40, 40)
        assert (images.pixels[:, :, 0, 0] == 255).all()  # on white
        middle = images.pixels[:, :, 20, 20].float() / 255
        expected = torch.stack([images.labels / 10, 1 - images.labels / 10, torch.full((len(images),), 0.5)], 1)
        assert (middle - expected).abs().max() < 0.02
    assert splits.origin.startswith("1 font, sha256 ")
    assert splits.origin.endswith("emoji-test.txt Version: 15.0")


def test_no_emoji_is_on_both_sides(folder):
    train, test, _ = Emoji(root=str(folder)).glyphs()
    assert not {glyph.character for glyph in train} & {glyph.character for glyph in test}
    assert len(train) + len(test) == PER_GROUP * len(GROUPS)


def test_each_picture_is_a_function_of_the_seed_and_its_place(folder):
    first, again, other = (Emoji(root=str(folder), seed=seed).load().train.pixels for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_font_without_colors_is_refused(folder):
    write_emoji_font(folder / "squares.ttf", in_color=False)
    with pytest.raises(TrainerError, match=r"no font below data\.root=.* has colors"):
        Emoji(root=str(folder)).load()


def test_a_group_that_the_font_does_not_draw_is_named(folder):
    write_emoji_font(folder / "squares.ttf", groups=7)
    with pytest.raises(TrainerError, match=r"squares\.ttf draws no emoji of Symbols"):
        Emoji(root=str(folder)).load()


def test_without_unicodes_list_the_error_names_it(folder):
    (folder / "emoji-test.txt").unlink()
    with pytest.raises(TrainerError, match=r"there is no emoji-test\.txt of Unicode below"):
        Emoji(root=str(folder)).load()
