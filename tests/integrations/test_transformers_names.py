"""The callback's name in logs and files, and an optimizer that leaves weights out, in transformers' Trainer."""

import pytest
import torch
from llama_training import language_model
from transformers_run import penalized, trainer

from ortho_kernels.integrations.transformers import OrthogonalityCallback


def test_a_name_with_a_slash_has_a_file_in_a_folder(tmp_path):
    """As `train/penalty`, by which reporters group their charts. The resumed run ends where the other did."""

    def run(**resumed):
        callback = penalized("srip", name="train/penalty")
        made = trainer(tmp_path, callback, save_strategy="steps", save_steps=10, logging_steps=10)
        made.train(**resumed)
        return made, callback

    whole, _ = run()
    assert (tmp_path / "checkpoint-10" / "train" / "penalty.pt").is_file()
    other, callback = run(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert callback.penalty.state_dict() == {"start.step": 20}
    assert all(map(torch.equal, whole.model.parameters(), other.model.parameters()))
    assert whole.state.log_history[-2]["train/penalty"] == other.state.log_history[-2]["train/penalty"] > 0


def test_weights_that_the_optimizer_does_not_hold_are_refused(tmp_path):
    """Their gradient would change nothing, without a word."""
    model = language_model()
    run = trainer(tmp_path, OrthogonalityCallback("so", module="model"), model)
    run.optimizer = torch.optim.SGD(model.lm_head.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"no optimizer holds .*layers.0.self_attn.q_proj.weight, .*freeze them, or"):
        run.train()
    model.model.requires_grad_(False)
    run.train()
