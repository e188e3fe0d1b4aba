"""The callback in Lightning's Trainer, of both packages, against the same training written out in plain torch."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from convolution_training import (
    BATCH,
    OPTIONS,
    STEPS,
    WrittenPenalty,
    check,
    distances,
    fused_adam,
    images,
    loss_of,
    network,
    sgd,
    trained,
)
from lightning_tasks import QUIET, loader, task, trainer
from torch import nn
from waits import Waits

from ortho_kernels import CosineSchedule
from ortho_kernels.integrations.lightning import OrthogonalityCallback


@pytest.fixture(params=[pl, pytorch_lightning], ids=lambda package: package.__name__)
def package(request):
    return request.param


def fitted(pl, case, data, optimizer=sgd, **options):
    """The network after the callback's training."""
    model = task(pl, optimizer)
    trainer(pl, OrthogonalityCallback(module="net.backbone", **OPTIONS[case]), **options).fit(model, loader(data))
    return model.net


@pytest.mark.parametrize("case", OPTIONS)
def test_a_step_a_batch(package, case):
    truth = trained(images(), case)
    check(fitted(package, case, images()), truth)
    without = distances(trained(images(), None), truth)
    assert min(distances(network(), trained(images(), None)).values()) > 1e-3
    assert min(without["backbone.0.weight"], without["backbone.3.weight"]) > 0.01


@pytest.mark.parametrize("case", ["so", "warm srip"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_accumulation_and_clipping(case, clip):
    """Once an optimizer step; the last one has fewer batches. Clipped with the loss's gradient."""
    data = images(3 * STEPS - 1)
    model = fitted(pl, case, data, accumulate_grad_batches=3, gradient_clip_val=clip)
    check(model, trained(data, case, accumulate=3, clip=clip))


@pytest.mark.parametrize("case", ["so", "warm srip"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_bfloat16(case, clip):
    model = fitted(pl, case, images(), precision="bf16-mixed", gradient_clip_val=clip)
    check(model, trained(images(), case, clip=clip, dtype=torch.bfloat16))


def scaler():
    return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=5)


@pytest.mark.parametrize("case", ["so", "warm srip"])
@pytest.mark.parametrize(
    ("optimizer", "clip", "accumulate"),
    [(sgd, None, 1), (sgd, 0.5, 2), (fused_adam, None, 1)],
    ids=["", "clipped", "fused"],
)
def test_float16(case, optimizer, clip, accumulate):
    """With a step that the scaler skips, whose gradients overflow. Fused optimizers unscale in their step."""
    data = images(accumulate * STEPS)
    data[30] = 1e30
    own = scaler()
    precision = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler=own)
    options = {"gradient_clip_val": clip, "accumulate_grad_batches": accumulate, "plugins": precision}
    model = fitted(pl, case, data, optimizer, **options)
    written = scaler()
    truth = trained(
        data, case, accumulate=accumulate, clip=clip, dtype=torch.float16, scaler=written, optimizer=optimizer
    )
    check(model, truth)
    assert own.get_scale() == written.get_scale() != 2.0**10 * 2 ** (STEPS // 5)


@pytest.mark.parametrize("case", [*OPTIONS, "every and a schedule"])
def test_a_resumed_run_is_the_uninterrupted_one(case, tmp_path):
    """To the last bit: the state is loaded before there is a penalty."""
    options = OPTIONS.get(case) or OPTIONS["srip"] | {"gamma": CosineSchedule(2.0, 0.0, STEPS), "every": 2}
    data = images(STEPS // 4)

    def fit(epochs, **resumed):
        model, callback = task(pl), OrthogonalityCallback(module="net.backbone", **options)
        runner = trainer(pl, callback, max_epochs=epochs)
        runner.fit(model, loader(data), **resumed)
        return model.net, runner, callback

    whole, _, callback = fit(4)
    _, half, _ = fit(2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _, other = fit(4, ckpt_path=tmp_path / "half.ckpt")
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))
    torch.testing.assert_close(callback.state_dict(), other.state_dict(), rtol=0, atol=0)
    assert case == "so" or callback.state_dict()


def test_a_state_waits_for_the_penalty(package):
    callback = OrthogonalityCallback("srip", module="net.backbone")
    assert callback.penalty is None
    assert callback.state_dict() == {}
    callback.load_state_dict({"start.step": torch.tensor(7)})
    assert callback.state_dict() == {"start.step": 7}
    trainer(package, callback).fit(task(package), loader(images(2)))
    assert callback.state_dict() == {"start.step": 9}


def test_fitting_goes_on_or_begins_anew():
    callback, model = OrthogonalityCallback("srip", module="net.backbone"), task(pl)
    for steps in (2, 4):
        trainer(pl, callback).fit(model, loader(images(2)))
        assert callback.state_dict() == {"start.step": steps}
    other = task(pl)
    trainer(pl, callback).fit(other, loader(images(2)))
    assert callback.state_dict() == {"start.step": 2}
    assert callback.penalty.encoder is other.net.backbone


def adversaries(pl, toggle):
    """A LightningModule whose backbone and head step in turns, by optimizers of their own."""

    class Adversaries(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.net = network()

        def training_step(self, batch, index):
            for optimizer, sign in zip(self.optimizers(), (1, -1), strict=True):
                if toggle:
                    self.toggle_optimizer(optimizer)
                self.zero_grad()
                self.manual_backward(sign * loss_of(self.net, batch))
                optimizer.step()
                if toggle:
                    self.untoggle_optimizer(optimizer)

        def configure_optimizers(self):
            return sgd(self.net.backbone.parameters()), sgd(self.net.head.parameters())

    return Adversaries()


def trained_adversaries(data, case):
    model = network()
    penalty = WrittenPenalty(model.backbone, case)
    parts = [model.backbone, model.head]
    optimizers = [sgd(part.parameters()) for part in parts]
    for batch in data.split(BATCH):
        for optimizer, part, sign in zip(optimizers, parts, (1, -1), strict=True):
            model.zero_grad()
            loss = sign * loss_of(model, batch)
            (loss + penalty() if part is model.backbone else loss).backward()
            optimizer.step()
    return model


@pytest.mark.parametrize("case", ["so", "warm srip"])
@pytest.mark.parametrize("toggle", [True, False])
def test_several_optimizers(case, toggle):
    """Once, in the step of the optimizer that holds the covered weights."""
    model = adversaries(pl, toggle)
    trainer(pl, OrthogonalityCallback(module="net.backbone", **OPTIONS[case])).fit(model, loader(images()))
    check(model.net, trained_adversaries(images(), case))


def test_a_penalty_for_each_optimizer(package):
    """Each with a name in the log and a state of its own."""
    parts = "net.backbone", "net.head"
    callbacks = [OrthogonalityCallback("srip", module=part, name=f"penalty of {part}") for part in parts]
    runner = trainer(package, *callbacks)
    runner.fit(adversaries(package, True), loader(images(3)))
    assert runner.callback_metrics.keys() == {f"penalty of {part}" for part in parts}
    assert len({callback.state_key for callback in callbacks}) == 2
    assert [callback.state_dict() for callback in callbacks] == [{"start.step": 3}] * 2


def test_computed_weights_belong_to_the_optimizer_of_their_parameters():
    model = adversaries(pl, True)
    nn.utils.parametrizations.weight_norm(model.net.backbone[3])
    callback = OrthogonalityCallback(module="net.backbone", gamma=1.0)
    before = model.net.backbone[3].weight.detach().clone()
    trainer(pl, callback).fit(model, loader(images(3)))
    assert callback.penalty.names == ("0.weight", "3.weight")
    assert not torch.equal(before, model.net.backbone[3].weight)


class Watched(OrthogonalityCallback):
    """Notes what would wait for a device, and what is logged."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.waits, self.logged = [], []

    def on_before_optimizer_step(self, *arguments):
        with Waits() as waits:
            super().on_before_optimizer_step(*arguments)
        self.waits.append(waits.seen)

    def on_train_batch_end(self, trainer, *arguments):
        self.logged.append(trainer.callback_metrics.get("penalty"))


@pytest.mark.parametrize("options", [{}, {"name": None}])
def test_the_value_is_logged_and_nothing_waits(package, options):
    """But for the zeros with which Lightning's metric begins."""
    callback = Watched("srip", module="net.backbone", gamma=1.0, **options)
    model = task(package, lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    trainer(package, callback).fit(model, loader(images(4)))
    first, *others = callback.waits
    assert all("at result.py" in wait and "torch.tensor" in wait for wait in first)
    assert others == [[], [], []]
    written = WrittenPenalty(model.net.backbone, "srip")
    written.options = {"kind": "srip", "gamma": 1.0}
    expected = [None] * 4 if options else [written().item() for _ in range(4)]
    assert callback.logged == pytest.approx(expected)


def test_a_callback_of_both_packages():
    """A Trainer takes one callback without a list only where it is one of its package."""
    for package in (pl, pytorch_lightning):
        callback = OrthogonalityCallback()
        assert isinstance(callback, package.Callback)
        assert callback in package.Trainer(**QUIET, callbacks=callback).callbacks


def test_what_it_cannot_serve_is_refused_by_name():
    def refused(error, match, optimizer=sgd, model=None, **options):
        with pytest.raises(error, match=match):
            trainer(pl, OrthogonalityCallback(**options)).fit(model or task(pl, optimizer), loader(images(1)))

    refused(
        ValueError,
        "module='net.encoder': net has no 'encoder'; it has backbone, head$",
        module="net.encoder",
    )
    refused(ValueError, "module='nett': the Task has no 'nett'; it has net$", module="nett")
    refused(TypeError, "'so' has no option 'warm_start'", warm_start=True)
    refused(ValueError, "include pattern 'nowhere' matches none", include="nowhere")
    refused(ValueError, "can't serve LBFGS", optimizer=torch.optim.LBFGS)
    refused(
        ValueError,
        r"several optimizers hold .* optimizer 0 holds net.backbone.0.weight, net.backbone.3.weight; optimizer 1 holds "
        "net.head.weight; make a penalty for each optimizer",
        model=adversaries(pl, True),
    )
    refused(
        ValueError,
        "no optimizer holds net.head.weight, which the penalty covers",
        optimizer=lambda parameters: sgd(list(parameters)[:4]),
    )


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy"])
def test_strategies_that_keep_weights_or_gradients_to_themselves(package, name):
    strategy = type("Own", (getattr(package.strategies, name),), {"__init__": lambda self: None})
    runner = SimpleNamespace(strategy=strategy())
    with pytest.raises(ValueError, match=f"can't serve {name}, which keeps"):
        OrthogonalityCallback().on_fit_start(runner, task(package))
