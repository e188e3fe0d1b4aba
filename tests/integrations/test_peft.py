"""The penalties of LoRA's factors and of their products, with PEFT, in the Trainer and in a plain loop."""

import peft
import pytest
import torch
from llama_training import Formula, assert_close, language_model, train
from transformers_run import trainer
from truth import residual

from ortho_kernels import LoraPenalty, OrthogonalityPenalty
from ortho_kernels.integrations.transformers import OrthogonalityCallback

RANK, ALPHA = 4, 8


def adapted():
    """Llama with adapters whose B is not zero, lest the first steps be alike."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "up_proj"])
    model = peft.get_peft_model(language_model(), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def factors(model):
    return {name: parameter for name, parameter in model.named_parameters() if "lora_" in name}


class Products(Formula):
    """SO of what each adapter adds to its layer, but for the singular values that are zero whatever the factors are."""

    def total(self, weights):
        pairs = [(weights[name.replace("lora_A", "lora_B")], A) for name, A in weights.items() if "lora_A" in name]
        products = [ALPHA / RANK * B @ A for B, A in pairs]
        return sum(residual(M, "small").square().sum() - (min(M.shape) - RANK) for M in products)


CASES = {
    "factors, so": ({"kind": "so", "lora": "factors", "gamma": 0.05}, Formula),
    "factors, srip": ({"kind": "srip", "lora": "factors", "gamma": 0.2}, Formula),
    "products": ({"kind": "so", "lora": "products", "gamma": 0.05}, Products),
}


def written(case, model):
    options, formula = CASES[case]
    return formula(factors(model), options["kind"], options["gamma"])


@pytest.mark.parametrize("case", CASES)
def test_in_the_trainer(case, tmp_path):
    options, _ = CASES[case]
    run = trainer(tmp_path, OrthogonalityCallback(**options), adapted(), max_grad_norm=0.5)
    run.train()
    truth = adapted()
    values = train(truth, written(case, truth), clip=0.5)
    assert_close(run.model, truth)
    logged = [log["penalty"] for log in run.state.log_history if "penalty" in log]
    assert logged[-1] == pytest.approx(sum(values[-5:]).item() / 5, rel=1e-5)

    without = adapted()
    train(without, clip=0.5)
    with pytest.raises(AssertionError):
        assert_close(run.model, without, tolerance=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_in_a_plain_loop(case):
    model, truth = adapted(), adapted()
    options, _ = CASES[case]
    if options["lora"] == "products":
        penalty = LoraPenalty(model, gamma=options["gamma"])
    else:
        penalty = OrthogonalityPenalty(model, **options)
    train(model, penalty)
    train(truth, written(case, truth))
    assert_close(model, truth)


def test_a_resumed_run_is_the_run_that_was_not_cut_off(tmp_path):
    def begun():
        callback = OrthogonalityCallback("srip", lora="factors", gamma=0.2, warm_start=True)
        return trainer(tmp_path, callback, adapted(), save_strategy="steps", save_steps=10)

    through, resumed = begun(), begun()
    through.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert_close(resumed.model, through.model, tolerance=0)
