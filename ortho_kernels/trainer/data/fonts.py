"""Fonts: those in a folder, or of Debian packages that are fetched into it; and the characters that each draws."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import TrainerError, Unavailable
from .debian_packages import FAILURES, unpacked
from .fetching import default_root, last_line

SUFFIXES = {".ttf", ".otf"}
HEIGHT = 96  # of a glyph in pixels, before it is scaled into a picture


@dataclass(frozen=True)
class Font:
    path: Path

    @cached_property
    def characters(self) -> frozenset[str]:
        """Those that it has a glyph for."""
        with self._read() as tables:  # closed again: there may be more fonts than files that can be open
            return frozenset(map(chr, tables.getBestCmap() or ()))

    @cached_property
    def has_colors(self) -> bool:
        with self._read() as tables:
            return not {"CBDT", "COLR", "sbix", "SVG "}.isdisjoint(tables.keys())

    def outline(self, character: str) -> str:
        """The curves of its glyph, written out; empty where it draws nothing.

        Glyphs of one outline look alike. Their pixels may differ, as FreeType fits each script to pixels in its own way.
        """
        from fontTools.pens.recordingPen import DecomposingRecordingPen

        glyphs, names = self._glyphs
        pen = DecomposingRecordingPen(glyphs)
        glyphs[names[ord(character)]].draw(pen)
        return str(pen.value) if pen.value else ""

    def glyph(self, character: str, in_color: bool = False) -> Image.Image | None:
        """How it draws the character, cut to its extent: light on dark, mode L, or in its own colors, RGBA.

        None where it draws nothing.
        """
        return _draw(self, character, in_color)

    @cached_property
    def opened(self) -> ImageFont.FreeTypeFont:
        try:
            return ImageFont.truetype(str(self.path), self._height, layout_engine=ImageFont.Layout.BASIC)
        except OSError as error:
            raise TrainerError(
                f"Pillow cannot read the font {self.path} ({error}). Remove it, or fetch it again."
            ) from None

    @property
    def _height(self) -> int:
        """A font of bitmaps has a few heights alone."""
        with self._read() as tables:
            if "CBLC" not in tables:
                return HEIGHT
            return max(strike.bitmapSizeTable.ppemY for strike in tables["CBLC"].strikes)

    @cached_property
    def _glyphs(self) -> tuple[Any, dict[int, str]]:
        tables = self._read()
        return tables.getGlyphSet(), tables.getBestCmap()

    def _read(self) -> Any:
        from fontTools.ttLib import TTFont, TTLibError  # matplotlib needs it too

        try:
            return TTFont(self.path, lazy=True)
        except (TTLibError, OSError) as error:
            raise TrainerError(
                f"The font {self.path} cannot be read ({error}). Remove it, or fetch it again."
            ) from None


def fonts_of(root: str | None, packages: Sequence[str], name: str) -> list[Font]:
    """The fonts below `root`, by path; by default those of the Debian packages, which are fetched where they are missing.

    Raises Unavailable where they can't be fetched.
    """
    if root is not None:
        fonts = _below(Path(root).expanduser())
        if not fonts:
            raise TrainerError(
                f"data={name}: there are no fonts ({', '.join(sorted(SUFFIXES))}) below data.root={root}."
            )
        return fonts
    folders = [package_folder(package, name) for package in packages]
    return [font for folder in folders for font in _below(folder)]


def package_folder(package: str, name: str) -> Path:
    """The files that a Debian package shares, in the user's cache; fetched if they are not there."""
    target = default_root() / "debian" / package
    if target.is_dir():
        return target
    print(f"{package} is not in {target.parent}: fetching it ...", flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unpacked(package, beside=target.parent) as folder:
            os.replace(folder / "usr" / "share", target)
    except FAILURES as error:
        if not target.is_dir():  # another process may have fetched it meanwhile
            raise Unavailable(
                f"The Debian package {package}, which data={name} needs, could not be fetched ({last_line(error)}). "
                "Without it give a folder that holds its files: data.root=FOLDER. Or take data=digits."
            ) from None
    return target


def fingerprint(files: Sequence[Path]) -> str:
    """Of the contents of the files, in their order: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=64)  # the copies of a glyph follow one another
def _draw(font: Font, character: str, in_color: bool) -> Image.Image | None:
    left, top, right, bottom = map(round, font.opened.getbbox(character))
    if right <= left or bottom <= top:
        return None
    picture = Image.new("RGBA" if in_color else "L", (right - left, bottom - top))
    fill = "black" if in_color else 255
    ImageDraw.Draw(picture).text((-left, -top), character, fill, font.opened, embedded_color=in_color)
    extent = picture.getbbox()
    return None if extent is None else picture.crop(extent)


def _below(folder: Path) -> list[Font]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return [Font(path) for path in sorted(paths)]
