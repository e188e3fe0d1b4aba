"""The command line: `key=value` words to configurations, configurations to runs.

What takes long to import is imported when it is needed, so that a mistyped word is answered at once.
"""

from collections.abc import Sequence


def main(words: Sequence[str]) -> None:
    flags, words = split_flags(words)
    if "help" in flags:
        from .config.help import help_text

        print(help_text(words))
        return
    from .config import combinations, load_config

    if "multirun" in flags:
        from .distributed.joining import require_alone

        require_alone("A sweep (-m)")
        varied, chosen = zip(*combinations(words), strict=True)
        configs = [
            load_config([f"title={_quoted(v)}", *all_words]) for v, all_words in zip(varied, chosen, strict=True)
        ]
        from .sweep import sweep

        print(f"Table and report of all: {sweep(varied, configs)}")
        return
    config = load_config(words)
    from .runs.pretrain import pretrain

    pretrain(config)


def split_flags(words: Sequence[str]) -> tuple[set[str], list[str]]:
    """What the words with a dash ask for, and the other words."""
    names = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}
    return {names[word] for word in words if word in names}, [word for word in words if word not in names]


def _quoted(words: Sequence[str]) -> str:
    from .config.quoting import quoted

    return quoted(", ".join(words)) if words else "null"
