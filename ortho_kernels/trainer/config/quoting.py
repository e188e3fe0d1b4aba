"""Words that Hydra's grammar can't read but that mean a text: `data.root=x-{000..031}.tar`, `data.root=图片`."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException


def as_readable(word: str) -> str:
    """The word with its value in quotes, if Hydra reads it no other way.

    Commas outside of braces separate values, and what begins as a list, a map or a quoted text is meant as one: such a
    word stays as it is, for an error that says what is wrong with it.
    """
    key, _, value = word.partition("=")
    if not value or value[0] in "[{\"'" or "," in re.sub(r"\{[^{}]*\}", "", value) or is_readable(word):
        return word
    return f"{key}={quoted(value)}"


def is_readable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def quoted(text: str) -> str:
    """As Hydra reads it back: backslashes count only before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), text) + "'"
