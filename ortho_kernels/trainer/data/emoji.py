"""Emoji, drawn from a color font: the class is the group that Unicode sorts them into, such as Food & Drink.

No emoji that is trained on is tested on. Those of one character serve, since sequences (flags, skin tones) need more than
a font to be drawn. So the groups Flags and Component are left out, which hardly have any.

The groups are those of Unicode's emoji-test.txt, in the Debian package unicode-data (Unicode License, 8 MB). The font is
Noto Color Emoji (SIL Open Font License), in fonts-noto-color-emoji (10 MB).
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..errors import TrainerError
from ..randomness import host_generator_for
from .drawn_glyphs import DrawnGlyphs, Glyph, split
from .fonts import Font, fonts_of, package_folder
from .images import Splits

PACKAGE = "fonts-noto-color-emoji"
LISTED = "emoji-test.txt"
GROUPS = [
    *("Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink"),
    *("Travel & Places", "Activities", "Objects", "Symbols"),
]
IN_COLOR = "\ufe0f"  # asks for the colored variety of a character that text fonts draw too


@dataclass
class Emoji(DrawnGlyphs):
    name: str = "emoji"
    size: int = 48

    in_color = True

    def load(self) -> Splits:
        version = next(line for line in self._list().read_text("utf-8").splitlines() if line.startswith("# Version:"))
        splits = super().load()
        return dataclasses.replace(splits, origin=f"{splits.origin}, {LISTED}{version.removeprefix('#')}")

    def glyphs(self) -> tuple[list[Glyph], list[Glyph], list[str]]:
        font = self._font()
        groups = read_groups(self._list().read_text("utf-8"))
        train: list[Glyph] = []
        test: list[Glyph] = []
        for label, group in enumerate(GROUPS):
            drawn = [emoji for emoji in groups.get(group, []) if emoji in font.characters and font.glyph(emoji, True)]
            if len(drawn) < 2:
                raise TrainerError(
                    f"data={self.name}: {font.path} draws {len(drawn) or 'no'} emoji of {group}, and to train and "
                    "test takes 2. Give another font: data.root=FOLDER."
                )
            parts = split(drawn, host_generator_for(self.seed, f"{group} split"))
            for glyphs, part in zip((train, test), parts, strict=True):
                glyphs += [Glyph(label, emoji, [font]) for emoji in part]
        return train, test, list(GROUPS)

    def _font(self) -> Font:
        colored = [font for font in fonts_of(self.root, [PACKAGE], self.name) if font.has_colors]
        if not colored:
            raise TrainerError(f"data={self.name}: no font below data.root={self.root} has colors.")
        return colored[0]

    def _list(self) -> Path:
        folder = Path(self.root).expanduser() if self.root else package_folder("unicode-data", self.name)
        if found := sorted(folder.rglob(LISTED)):
            return found[0]
        raise TrainerError(f"data={self.name}: there is no {LISTED} of Unicode below {folder}, which sorts the emoji.")


def read_groups(text: str) -> dict[str, list[str]]:
    """The emoji of one character by their groups, from Unicode's emoji-test.txt."""
    groups: dict[str, list[str]] = {}
    group = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ").strip()
        elif "; fully-qualified" in line:
            emoji = "".join(chr(int(code, 16)) for code in line.partition(";")[0].split()).rstrip(IN_COLOR)
            if len(emoji) == 1:
                groups.setdefault(group, []).append(emoji)
    return groups
