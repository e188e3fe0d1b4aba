"""Several callbacks in one Trainer of Lightning: each with a name, and a state of its own."""

import csv

import lightning.pytorch as pl
import pytest
import torch
from convolution_training import WrittenPenalty, images
from lightning_tasks import loader, task, trainer

from ortho_kernels.integrations.lightning import OrthogonalityCallback


def test_two_callbacks_of_one_kind_differ_by_their_names(tmp_path):
    """In what they log, and in a checkpoint."""
    parts = {"stem": ["net.backbone.0"], "rest": ["net.backbone.3", "net.head"]}

    def fit(epochs, **resumed):
        callbacks = [OrthogonalityCallback("srip", include=part, name=name, warm_start=True, gamma=0.5)
                     for name, part in parts.items()]  # fmt: skip
        model, runner = task(pl), trainer(pl, *callbacks, max_epochs=epochs)
        runner.fit(model, loader(images(3)), **resumed)
        return model, runner, callbacks

    whole, runner, callbacks = fit(2)
    assert runner.callback_metrics.keys() == parts.keys()
    assert [len(callback.state_dict()) for callback in callbacks] == [1, 2]
    _, half, _ = fit(1)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _, _ = fit(2, ckpt_path=tmp_path / "half.ckpt")
    assert all(map(torch.equal, whole.parameters(), resumed.parameters()))


def test_two_callbacks_of_one_name_are_refused():
    """Lightning would log the last one's value alone."""
    callbacks = [OrthogonalityCallback(kind, module="net.backbone") for kind in ("so", "srip")]
    with pytest.raises(ValueError, match="several OrthogonalityCallbacks log 'penalty': give each a `name` of its own"):
        trainer(pl, *callbacks).fit(task(pl), loader(images(1)))
    silent = [OrthogonalityCallback(kind, module="net.backbone", name=None) for kind in ("so", "srip")]
    trainer(pl, *silent).fit(task(pl), loader(images(1)))


def test_steps_that_every_leaves_out_log_nothing(tmp_path):
    """Though the logger writes at these steps alone: it has the value of the last step that computed one."""
    model = task(pl, lambda parameters: torch.optim.SGD(parameters, lr=0.0))
    callback = OrthogonalityCallback("so", module="net.backbone", gamma=1.0, every=2)
    logger = pl.loggers.CSVLogger(tmp_path)
    runner = trainer(pl, callback, logger=logger, log_every_n_steps=2)
    runner.fit(model, loader(images(4)))
    written = WrittenPenalty(model.net.backbone, "so")
    written.options = {"kind": "so", "gamma": 2.0}  # for two steps
    assert runner.callback_metrics["penalty"].item() == pytest.approx(written().item(), rel=1e-5)
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rows = [(int(row["step"]), float(row["penalty"])) for row in csv.DictReader(file)]
    assert rows == [(step, pytest.approx(written().item(), rel=1e-5)) for step in (1, 3)]
