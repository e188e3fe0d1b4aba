"""An encoder as a run has it in its last checkpoint, without a run."""

from pathlib import Path

import torch

from ortho_kernels.trainer.config import identity


def save_encoder(run, config, encoder, preprocess):
    """Writes the checkpoint of step 1 into the folder, with a head that no export takes; returns the folder."""
    (Path(run) / "checkpoints").mkdir(parents=True)
    state = {f"method.encoder.{name}": value for name, value in encoder.state_dict().items()}
    content = {"state_dict": state | {"method.projector.weight": torch.ones(2)}, "preprocess": preprocess}
    torch.save(content | {"configuration": identity(config)}, Path(run) / "checkpoints" / "step-000000001.ckpt")
    return run
