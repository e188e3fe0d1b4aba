"""The callback in transformers' Trainer, against the loop written out."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from llama_training import (
    BATCH,
    GAMMA,
    STEPS,
    Formula,
    assert_close,
    examples,
    language_model,
    linear_weights,
    train,
    trained,
)
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState
from transformers_run import arguments, penalized, trainer

from ortho_kernels import CosineSchedule, OrthogonalityPenalty
from ortho_kernels.integrations.transformers import OrthogonalityCallback

KINDS = ("so", "srip")


class WithoutNorm(Trainer):
    """Does not look at the norm of gradients, and so leaves them scaled."""

    def _get_grad_norm(self, model, grad_norm=None):
        return 0.0


SCALED = {"fp16": True, "scale": 2.0**10}
CASES = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "clipping": {"max_grad_norm": 0.5},
    "bf16": {"bf16": True, "max_grad_norm": 0.5},
    "fp16": {**SCALED, "max_grad_norm": 0.5, "gradient_accumulation_steps": 2},
    "fp16, overflow": {**SCALED, "scale": 2.0**22},
    "fp16, still scaled": {**SCALED, "kind": WithoutNorm},
    "fp16, still scaled, overflow": {**SCALED, "kind": WithoutNorm, "scale": 2.0**22},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_the_trainer_does_as_the_loop(case, kind, tmp_path):
    options = dict(CASES[case])
    scale = options.pop("scale", None)
    scalers = [None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale) for _ in range(2)]
    callback = penalized(kind)
    run = trainer(tmp_path, callback, scaler=scalers[0], **options)
    run.train()

    truth = language_model()
    dtype = torch.bfloat16 if "bf16" in options else torch.float16 if scale else None
    # In 16 bit, a last digit may turn a rounding, and that all later ones: the package's own digits are taken there.
    penalty = (
        OrthogonalityPenalty(truth, kind, gamma=GAMMA[kind])
        if dtype
        else Formula(linear_weights(truth), kind, GAMMA[kind])
    )
    loop = {
        "accumulation": options.get("gradient_accumulation_steps", 1),
        "clip": options.get("max_grad_norm", 0.0),
        "dtype": dtype,
    }
    values = train(truth, penalty, scaler=scalers[1], **loop)
    assert_close(run.model, truth)
    if scale:
        assert scalers[0].get_scale() == scalers[1].get_scale()
        assert (scalers[0].get_scale() < scale) == ("overflow" in case)

    logged = [log["penalty"] for log in run.state.log_history if "penalty" in log]
    means = torch.tensor(values, dtype=torch.float32).view(-1, 5).mean(1)
    torch.testing.assert_close(torch.tensor(logged), means, rtol=1e-5, atol=0)
    if kind == "srip":
        assert callback.penalty.start.step == STEPS


def test_the_penalty_matters():
    """To weights that are compared to five digits."""
    without = language_model()
    train(without)
    for kind in KINDS:
        with pytest.raises(AssertionError):
            assert_close(trained(kind), without, tolerance=1e-2)


class Logs(TrainerCallback):
    """What a reporter after the callback sees."""

    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs, **parts):
        self.seen.append(dict(logs))


def test_what_is_logged(tmp_path):
    reporter, callback = Logs(), penalized("so", name="orthogonality", every=5)
    run = trainer(tmp_path, callback, eval_strategy="steps", eval_steps=10, eval_dataset=examples(BATCH))
    run.add_callback(reporter)
    run.train()
    losses = [logs for logs in reporter.seen if "loss" in logs]
    assert [logs["orthogonality"] for logs in losses] == [
        log["orthogonality"] for log in run.state.log_history if "loss" in log
    ]
    assert len(losses) == 4
    assert all(logs["orthogonality"] > 0 for logs in losses)  # the mean, though four of five are left out
    others = [logs for logs in reporter.seen if "loss" not in logs]
    assert any("eval_loss" in logs for logs in others)
    assert not any("orthogonality" in logs for logs in others)


def test_a_name_that_the_logs_have_is_refused(tmp_path):
    run = trainer(tmp_path, penalized("so"))
    run.add_callback(penalized("srip"))
    with pytest.raises(ValueError, match="the logs have 'penalty' already: give OrthogonalityCallback another `name`"):
        run.train()


# Checkpoints

RESUMED = {
    "so": {"gamma": CosineSchedule(0.02, 0.0, STEPS)},
    "srip": {"gamma": 0.1},
    "srip, warm start": {"gamma": CosineSchedule(0.1, 0.02, STEPS), "warm_start": True, "every": 3},
}


@pytest.mark.parametrize("case", RESUMED)
def test_a_resumed_run_is_the_run_that_was_not_cut_off(case, tmp_path, caplog):
    def begun():
        callback = OrthogonalityCallback(case.partition(",")[0], **RESUMED[case])
        return trainer(tmp_path, callback, save_strategy="steps", save_steps=10), callback

    through, callback = begun()
    through.train()
    state = {name: value.clone() for name, value in callback.penalty.state_dict().items()}
    checkpoint = tmp_path / "checkpoint-10"
    assert {path.name for path in checkpoint.glob("penalty*")} == {"penalty.pt"}

    resumed, callback = begun()
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for left, right in zip(resumed.model.parameters(), through.model.parameters(), strict=True):
        assert torch.equal(left, right)
    assert state.keys() == callback.penalty.state_dict().keys()
    assert all(torch.equal(value, callback.penalty.state_dict()[name]) for name, value in state.items())

    (checkpoint / "penalty.pt").unlink()
    forgetful, callback = begun()
    with caplog.at_level(logging.WARNING, "ortho_kernels"):
        forgetful.train(resume_from_checkpoint=str(checkpoint))
    assert "penalty.pt is not there: the penalty's calls and start vectors begin anew" in caplog.text
    with pytest.raises(AssertionError):
        assert_close(forgetful.model, through.model)


def test_a_checkpoint_elsewhere_is_named_in_the_arguments(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 10}
    through = trainer(tmp_path / "first", penalized("srip"), **options)
    through.train()
    checkpoint = str(tmp_path / "first" / "checkpoint-10")
    lost = trainer(tmp_path / "second", penalized("srip"), **options)
    with pytest.raises(
        ValueError, match=r"goes on from step 10.*second.checkpoint-10 is not there: give TrainingArguments"
    ):
        lost.train(resume_from_checkpoint=checkpoint)
    mistaken = trainer(
        tmp_path / "second", penalized("srip"), resume_from_checkpoint=str(tmp_path / "first/checkpoint-20")
    )
    with pytest.raises(ValueError, match=r"penalty.pt is of step 20, but training goes on from step 10"):
        mistaken.train(resume_from_checkpoint=checkpoint)
    found = trainer(tmp_path / "second", penalized("srip"), resume_from_checkpoint=checkpoint, **options)
    found.train(resume_from_checkpoint=checkpoint)
    assert_close(found.model, through.model, tolerance=0)


def test_soft_orthogonality_alone_has_nothing_to_resume(tmp_path):
    trainer(tmp_path / "first", penalized("so"), save_strategy="steps", save_steps=10).train()
    run = trainer(tmp_path / "second", penalized("so"))
    run.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-10"))
    assert_close(run.model, trained("so"))


def test_each_training_begins_anew(tmp_path):
    """Also its logs, of which the last steps of the first are none."""
    callbacks = [penalized("srip"), penalized("srip")]
    run = trainer(tmp_path, callbacks[0], logging_steps=8)
    assert callbacks[0].penalty is None
    run.train()
    other = trainer(tmp_path, callbacks[1], copy.deepcopy(run.model), logging_steps=8)
    histories = []
    for one, callback in zip((run, other), callbacks, strict=True):
        one.train()
        assert callback.penalty.start.step == STEPS
        histories.append([log.get("penalty") for log in one.state.log_history])
    assert histories[0] == histories[1]


# What is penalized, and what is refused


def test_a_submodule_alone(tmp_path):
    callback = penalized("so", module="model.layers", include="*.mlp")
    run = trainer(tmp_path, callback, max_steps=1)
    run.train()
    whole = OrthogonalityPenalty(run.model, include="model.layers.*.mlp")
    assert [f"model.layers.{name}" for name in callback.penalty.names] == list(whole.names)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("encoder", "the LlamaForCausalLM has no 'encoder'; it has model, lm_head"),
        ("model.layer.0", "model has no 'layer'; it has embed_tokens, layers, norm"),
        ("lm_head.0", "lm_head has no '0'; it has no modules"),
    ],
)
def test_a_path_that_leads_nowhere(path, words, tmp_path):
    run = trainer(tmp_path, penalized("so", module=path))
    with pytest.raises(ValueError, match=f"module='{path}': {words}"):
        run.train()


def test_what_the_callback_refuses_at_once():
    with pytest.raises(TypeError, match="dotted path of a submodule, or None for all; got a Linear"):
        OrthogonalityCallback(module=nn.Linear(2, 2))
    with pytest.raises(ValueError, match='lora="products" has the kind "so" alone; got \'srip\''):
        OrthogonalityCallback("srip", lora="products", gamma=1.0)


def begin(args, model):
    OrthogonalityCallback().on_train_begin(args, TrainerState(), TrainerControl(), model=model)


def test_deepspeed_is_refused():
    args = SimpleNamespace(deepspeed_plugin=object())
    with pytest.raises(ValueError, match=r"DeepSpeed keeps gradients flat.*train with DDP, or with FSDP2"):
        begin(args, language_model())


@pytest.mark.parametrize("optimizer", ["galore_adamw_layerwise", "apollo_adamw_layerwise", "lomo", "adalomo"])
def test_optimizers_that_step_within_the_backward_are_refused(optimizer, tmp_path):
    with pytest.raises(ValueError, match=f"{optimizer} steps within the backward"):
        begin(arguments(tmp_path, optim=optimizer), language_model())
