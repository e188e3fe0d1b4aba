"""The command line: `key=value` words to configurations, configurations to runs.

What takes long to import is imported when it is needed, so that a mistyped word is answered at once.
"""

from collections.abc import Callable, Sequence


def main(words: Sequence[str]) -> None:
    with_flags(words, _train)


def with_flags(words: Sequence[str], work: Callable[[Sequence[str], bool], None]) -> None:
    """Calls `work` with the words that are options, and whether -m asks for several runs; or prints their help."""
    names = {"-h": "help", "--help": "help", "-m": "multirun", "--multirun": "multirun"}
    flags, options = {names[word] for word in words if word in names}, [word for word in words if word not in names]
    if "help" in flags:
        from .config.help import help_text

        print(help_text(options))
        return
    work(options, "multirun" in flags)


def _train(words: Sequence[str], multirun: bool) -> None:
    from .config import combinations, load_config

    if multirun:
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


def _quoted(words: Sequence[str]) -> str:
    from .config.quoting import quoted

    return quoted(", ".join(words)) if words else "null"
