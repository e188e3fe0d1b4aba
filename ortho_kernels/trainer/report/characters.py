"""Text and curves on a grid of characters, for a terminal.

A cell of a curve is 2 x 4 dots: a Braille character, or the ASCII character nearest to it.
"""

import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])  # bits of U+2800 by row and column
ASCII_DOTS = " '-'-:-|.::|.|||"  # by which of the four rows of dots are set: 1 the highest, 8 the lowest
ASCII = str.maketrans("│┤└─━●·…", "||+-=*..")
PLAIN = ""


class Grid:
    """`width` x `height` cells, each a character and its style: the numbers of an SGR escape, such as "1;36"."""

    def __init__(self, width: int, height: int, ascii_only: bool = False) -> None:
        self.width = width
        self.height = height
        self.ascii_only = ascii_only
        self.cells = [[(" ", PLAIN)] * width for _ in range(height)]

    def put(self, column: int, row: int, text: str, style: str = PLAIN) -> int:
        """Writes from this cell on, as far as the line goes; returns the column after the text."""
        for character, width in _characters(self._encoded(text)):
            if not (0 <= row < self.height and column + width <= self.width):
                break
            if column >= 0:
                self.cells[row][column : column + width] = [(character, style), ("", style)][:width]
            column += width
        return column

    def dots(self, column: int, row: int, dots: NDArray[np.bool_], style: str, mark: str | None = None) -> None:
        """Adds the dots of a curve, `(4 x cells down, 2 x cells right)`; with a `mark`, that character wherever it
        goes."""
        rows, columns = dots.shape[0] // 4, dots.shape[1] // 2
        blocks = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
        for down, right in zip(*np.nonzero(blocks.any(axis=(2, 3))), strict=True):
            before = self.cells[row + down][column + right][0]
            character = mark or self._dotted(before, blocks[down, right])
            self.cells[row + down][column + right] = (character, style)

    def lines(self, colors: bool) -> list[str]:
        return [_line(cells, colors) for cells in self.cells]

    def _encoded(self, text: str) -> str:
        if not self.ascii_only:
            return text
        return text.translate(ASCII).encode("ascii", "replace").decode()

    def _dotted(self, before: str, block: NDArray[np.bool_]) -> str:
        if self.ascii_only:
            return ASCII_DOTS[int(np.dot(block.any(axis=1), [1, 2, 4, 8]))]
        drawn = ord(before) - 0x2800 if 0x2800 <= ord(before) < 0x2900 else 0
        return chr(0x2800 + (drawn | int((block * DOTS).sum())))


def _characters(text: str) -> Iterator[tuple[str, int]]:
    """Characters with what belongs to each, and the columns that they take."""
    found = ""
    for character in text:
        if unicodedata.combining(character):
            found += character
            continue
        if found:
            yield found, _columns(found)
        found = character
    if found:
        yield found, _columns(found)


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character[0]) in "WF" else 1


def text_width(text: str) -> int:
    """The columns that a text takes."""
    return sum(width for _, width in _characters(text))


def shortened(text: str, columns: int) -> str:
    """The text, its end cut off where it takes more columns than these."""
    if text_width(text) <= columns:
        return text
    kept, used = "", 1
    for character, width in _characters(text):
        if used + width > columns:
            break
        kept, used = kept + character, used + width
    return kept + "…"


def _line(cells: list[tuple[str, str]], colors: bool) -> str:
    if not colors:
        return "".join(character for character, _ in cells).rstrip()
    text, current = "", PLAIN
    for character, style in cells:
        if style != current:
            text += "\x1b[0m" + (f"\x1b[{style}m" if style else "")
            current = style
        text += character
    return text.rstrip() + ("\x1b[0m" if current else "")


def polyline(xs: NDArray[np.float64], ys: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Dots `(height, width)` of the line through these points, whose coordinates are dots: (0, 0) is the lowest of the
    left. A point that is NaN is a gap."""
    dots = np.zeros((height, width), dtype=bool)
    finite = np.isfinite(xs) & np.isfinite(ys)
    columns = np.where(finite, xs, 0).round().astype(int).clip(0, width - 1)
    rows = height - 1 - np.where(finite, ys, 0).round().astype(int).clip(0, height - 1)
    dots[rows[finite], columns[finite]] = True
    for i in np.flatnonzero(finite[1:] & finite[:-1]):
        count = 1 + max(abs(columns[i + 1] - columns[i]), abs(rows[i + 1] - rows[i]))
        down, right = (np.linspace(a[i], a[i + 1], count).round().astype(int) for a in (rows, columns))
        dots[down, right] = True
    return dots
