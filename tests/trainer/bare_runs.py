"""A run without its evaluation and report, for the processes that a test starts too."""

import torch

from ortho_kernels.trainer.data import load_splits
from ortho_kernels.trainer.runs.folders import open_run
from ortho_kernels.trainer.runs.pretrain import build_module, build_stream, fit, instantiate
from ortho_kernels.trainer.runs.prolonging import note_prolonged
from ortho_kernels.trainer.runs.starts import prepare_start


def train(ranks, config, callbacks=()):
    """Trains as configured, or goes on with `resume`; returns the run's folder."""
    torch.set_num_threads(1)
    splits = load_splits(instantiate(config.data), ranks)
    config, start = prepare_start(config, splits.channels, ranks)
    stream = build_stream(config, splits, ranks)
    steps = len(stream) // config.trainer.accumulate
    config = note_prolonged(config, steps, ranks)
    module = build_module(config, splits, ranks, steps, start)
    with open_run(config, ranks) as run:
        fit(config, run, module, stream, splits, ranks, callbacks)
        return run.folder
