"""Queues of earlier batches, over Lightly's memory banks: filled from all processes alike, and part of checkpoints."""

from typing import TypeVar

from lightly.models.modules import NNMemoryBankModule
from lightly.models.modules.memory_bank import MemoryBankModule

from ..errors import TrainerError

Bank = TypeVar("Bank", bound=MemoryBankModule)


def queue(size: int, dim: int) -> MemoryBankModule:
    """Answers a batch with the batch and the `(dim, size)` vectors of the batches before it."""
    return kept(MemoryBankModule((size, dim), gather_distributed=True))


def neighbours(size: int, dim: int) -> NNMemoryBankModule:
    """Answers a batch with the nearest of the vectors of the batches before it: `(batch, dim)`."""
    bank = kept(NNMemoryBankModule((size, dim)))
    bank.gather_distributed = True
    return bank


def kept(bank: Bank) -> Bank:
    """Lightly leaves what a bank holds out of checkpoints; a resumed run would start from noise."""
    if bank.size[0] == 0:
        raise TrainerError("method.queue must be 1 or more: this method compares with what its queue holds.")
    bank.register_buffer("bank", bank.bank, persistent=True)
    bank.register_buffer("bank_ptr", bank.bank_ptr, persistent=True)
    return bank
