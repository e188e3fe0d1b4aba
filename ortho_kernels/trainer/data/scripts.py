"""Letters of the world's writing systems, drawn from fonts: the class is the script, as Unicode has it.

No letter that is trained on is tested on, in either case. So a score says what is common to the letters of a script.

Fonts: Noto (SIL Open Font License) and, for East Asia, Droid Fallback (Apache License), two Debian packages of 14 MB.
"""

from dataclasses import dataclass

from ..errors import TrainerError
from ..options import at_least, option
from ..randomness import host_generator_for
from .alphabets import Alphabet, alphabets_of, script_code, without_lookalikes
from .drawn_glyphs import DrawnGlyphs, Glyph, split
from .fonts import fonts_of

PACKAGES = ("fonts-noto-core", "fonts-droid-fallback")
SCRIPTS = [
    *("Latin", "Greek", "Cyrillic", "Armenian", "Georgian", "Hebrew", "Arabic", "Syriac", "Thaana", "Nko", "Adlam"),
    *("Ethiopic", "Tifinagh", "Vai", "Cherokee", "Canadian_Aboriginal", "Osage", "Mongolian", "Tibetan"),
    *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam", "Sinhala"),
    *("Thai", "Lao", "Khmer", "Myanmar", "Javanese", "Balinese", "Hiragana", "Katakana", "Hangul", "Han", "Yi"),
]


@dataclass
class Scripts(DrawnGlyphs):
    name: str = "scripts"
    scripts: list[str] = option(SCRIPTS, "classes: scripts, as Unicode names them")
    letters: int = option(200, "letters of each script at most, drawn by data.seed", at_least(2))

    def glyphs(self) -> tuple[list[Glyph], list[Glyph], list[str]]:
        codes = {script_code(name): name for name in self.scripts}
        fonts = fonts_of(self.root, PACKAGES, self.name)
        alphabets = {code: self._some(codes[code], each) for code, each in alphabets_of(fonts, list(codes)).items()}
        train: list[Glyph] = []
        test: list[Glyph] = []
        for label, (code, alphabet) in enumerate(without_lookalikes(alphabets).items()):
            parts = split(self._cases(codes[code], alphabet), host_generator_for(self.seed, f"{code} split"))
            for glyphs, cases in zip((train, test), parts, strict=True):
                glyphs += [Glyph(label, letter, alphabet.fonts) for case in cases for letter in case]
        return train, test, list(codes.values())

    def _some(self, script: str, alphabet: Alphabet) -> Alphabet:
        if not alphabet.letters:
            raise TrainerError(
                f"data={self.name}: no font draws a letter of {script}. Leave it out of data.scripts, or give fonts "
                "that do: data.root=FOLDER."
            )
        return alphabet.some(self.letters, host_generator_for(self.seed, f"{script} letters"))

    def _cases(self, script: str, alphabet: Alphabet) -> list[list[str]]:
        cases = alphabet.cases()
        if len(cases) < 2:
            raise TrainerError(
                f"data={self.name}: {len(cases) or 'no'} letter of {script} is left that looks like none of another script, "
                "and to train and test takes 2. Raise data.letters, or leave the script out of data.scripts."
            )
        return cases
