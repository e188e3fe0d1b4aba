"""What loading data says: once, though every process of a run loads it."""

import torch.distributed as dist


def speaks() -> bool:
    """Whether this process says what all processes of the run find alike: rank 0 does."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_rank() > 0)


def say(text: str) -> None:
    if speaks():
        print(text, flush=True)
