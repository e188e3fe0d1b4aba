"""Processes that tests start are forked from one that has imported what they need, which takes each ten seconds otherwise.

That one is no copy of the test's own process: it has no threads, and nothing but these modules.
"""

import multiprocessing

PRELOADED = ["torch.distributed.fsdp", "ortho_kernels.backends.triton", "ortho_kernels.trainer.runs.pretrain"]


def forking_context():
    """In the place of `multiprocessing.get_context("spawn")`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
