"""What loading data says: once, though every process of a run loads it, and in one line."""

import torch.distributed as dist


def is_main_process() -> bool:
    """Rank 0, which says what all processes of the run find alike."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)


def say(text: str) -> None:
    if is_main_process():
        print(printable(text), flush=True)


def printable(text: str) -> str:
    """In one line that every terminal and file takes. Names of files may hold newlines, and bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
