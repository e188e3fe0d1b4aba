"""The letters of writing systems, as Unicode names and sorts them, and the fonts that draw them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import TrainerError, did_you_mean
from .fonts import Font

LETTERS = {"Lu", "Ll", "Lo"}  # Unicode's categories of letters, without marks that modify others
NEARLY_ALL = 0.9  # of the letters that the best font of a script draws


@dataclass(frozen=True)
class Alphabet:
    """Letters, each drawn by each of the fonts."""

    letters: Sequence[str]
    fonts: Sequence[Font]

    def cases(self) -> list[list[str]]:
        """The letters; those that differ in their case stand together."""
        together: dict[str, list[str]] = {}
        for letter in self.letters:
            together.setdefault(letter.casefold(), []).append(letter)
        return list(together.values())

    def some(self, count: int, generator: np.random.Generator) -> "Alphabet":
        """Those of `count` letters, drawn at random, or all of them if there are no more."""
        drawn = np.sort(generator.permutation(len(self.letters))[:count])
        return replace(self, letters=[self.letters[place] for place in drawn])


def script_code(name: str) -> str:
    """Unicode's four letters for a script. Raises TrainerError where there is none of this name."""
    from fontTools.unicodedata import Scripts

    codes = {known: code for code, known in Scripts.NAMES.items()}
    if name not in codes:
        raise TrainerError(f"There is no script {name}.{did_you_mean(name, list(codes))} Unicode's names count.")
    return codes[name]


def alphabets_of(fonts: Iterable[Font], scripts: Sequence[str]) -> dict[str, Alphabet]:
    """The letters of each script, by its code: those that all fonts draw that draw nearly as many as the best one.

    Letters that are made of others are left out, such as those with accents. A script that no font draws is empty.
    """
    drawn: dict[str, dict[Font, set[str]]] = {script: defaultdict(set) for script in scripts}
    for font in fonts:
        for character in font.characters:
            if (script := _script_of_letter(character)) in drawn:
                drawn[script][font].add(character)
    return {script: _alphabet(by_font) for script, by_font in drawn.items()}


def _script_of_letter(character: str) -> str | None:
    from fontTools.unicodedata import script

    is_letter = unicodedata.category(character) in LETTERS and not unicodedata.decomposition(character)
    return script(character) if is_letter else None


def _alphabet(drawn: Mapping[Font, set[str]]) -> Alphabet:
    most = max(map(len, drawn.values()), default=0)
    fonts = [font for font, letters in drawn.items() if len(letters) >= NEARLY_ALL * most]
    return Alphabet(sorted(set.intersection(*(drawn[font] for font in fonts))) if fonts else [], fonts)


def without_lookalikes(alphabets: Mapping[str, Alphabet]) -> dict[str, Alphabet]:
    """Without the letters of one script that look like those of another, all of them, and without a script's own twins,
    but the first. Letters look alike that the first font of their script draws alike, such as A in Latin and in Greek."""
    first: dict[str, tuple[str, str]] = {}  # outline to the script and letter that it was met at
    ambiguous = {""}  # nothing is drawn
    for script, alphabet in alphabets.items():
        for letter in alphabet.letters:
            outline = alphabet.fonts[0].outline(letter)
            if first.setdefault(outline, (script, letter))[0] != script:
                ambiguous.add(outline)
    kept = {place for outline, place in first.items() if outline not in ambiguous}
    return {
        script: replace(alphabet, letters=[letter for letter in alphabet.letters if (script, letter) in kept])
        for script, alphabet in alphabets.items()
    }
