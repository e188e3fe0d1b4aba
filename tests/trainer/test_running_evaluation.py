"""Scores while a run trains: what they are, when they come, and that they change nothing else."""

import hashlib
import math
import pickle
import random
import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from bare_runs import train
from lightning.pytorch import Callback
from outside_parts import Noise
from sklearn.neighbors import KNeighborsClassifier
from small_methods import build
from tiny import tiny_words

from ortho_kernels.spectra import effective_rank, rankme, representation_eigenvalues
from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import MemoryImages, Splits
from ortho_kernels.trainer.data.digits import Digits
from ortho_kernels.trainer.data.stream import Order
from ortho_kernels.trainer.data.view_settings import ViewSettings, plan_views
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.engine.evaluations import Evaluations
from ortho_kernels.trainer.engine.monitor import Monitor
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.probes.running import RunningProbe
from ortho_kernels.trainer.report import plots
from ortho_kernels.trainer.report.groups import groups_of
from ortho_kernels.trainer.report.metrics_file import read_metrics
from ortho_kernels.trainer.report.record import RunRecord
from ortho_kernels.trainer.runs import pretrain as runs
from ortho_kernels.trainer.runs.pretrain import pretrain

# 64 pictures, and 64 // 24 = 2 batches an epoch: epochs end with steps 2 and 4.
SHORT = ["data=outside_parts:Noise", "trainer.batch_size=24", "trainer.max_steps=5", "backbone.width=2"]
LOOKS = ["evaluation.every=1", "evaluation.sample=60"]
TIMINGS = {"images_per_second", "penalty_share"}
TIMM = "{img_size: 6, patch_size: 3, depth: 2, embed_dim: 12, num_heads: 2, drop_path_rate: 0.5, proj_drop_rate: 0.4}"


def evaluations(folder):
    return read_metrics(folder / "evaluations.csv")


class Generators(Callback):
    """What the global generators hold before every batch."""

    def __init__(self):
        self.states = []

    def on_train_batch_start(self, trainer, module, batch, index):
        numpy = np.random.get_state()
        states = random.getstate(), numpy[1].tobytes(), numpy[2:], torch.get_rng_state().numpy().tobytes()
        self.states.append(hashlib.sha256(pickle.dumps(states)).hexdigest())


def bits(folder):
    """All that a run has computed: its checkpoint, byte for byte, and its metrics."""
    checkpoint = read_checkpoint(checkpoint_files(folder / "checkpoints")[0])
    parts = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops")}
    rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in read_metrics(folder / "metrics.csv")]
    return as_bytes(parts), rows


def as_bytes(value):
    if isinstance(value, dict):
        return {key: as_bytes(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_bytes(each) for each in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


@pytest.fixture
def restless(monkeypatch):
    """Every forward pass of an encoder draws from all global generators, in evaluation mode too."""

    def draw(layer, inputs, output):
        return output + 1e-3 * (torch.rand(()).item() + np.random.rand() + random.random())

    def build(*arguments):
        encoder = build_encoder(*arguments)
        encoder.register_forward_hook(draw)
        return encoder

    build_encoder = runs.build_encoder
    monkeypatch.setattr(runs, "build_encoder", build)


@pytest.mark.parametrize(
    "words",
    [
        ["method=byol", "penalty=srip", "penalty.warm_start=true", "evaluation.network=teacher"],
        ["method=byol", "penalty=srip", "trainer.ema=0.9", "evaluation.network=ema", "trainer.accumulate=2"],
        ["method=dino", "method.prototypes=16", "data.views.local.count=1", "optimizer=adamw", "penalty=none"],
        ["method=simclr", "backbone=timm", "backbone.model=vit_tiny_patch16_224", f"backbone.options={TIMM}"],
        ["method=nnbyol", "method.queue=70", "trainer.accumulate=2", "trainer.precision=bf16-mixed"],
    ],
    ids=lambda words: words[0],
)
def test_a_run_has_the_same_bits_with_and_without(tiny, restless, words):
    short = [word for word in SHORT if not ("backbone=timm" in words and word.startswith("backbone."))]
    found = []
    for looks in ([], LOOKS):
        generators = Generators()
        found.append((bits(train(ALONE, tiny_of(tiny, *short, *words, *looks), [generators])), generators.states))
    assert len(found[0][1]) > 4
    assert found[0] == found[1]


def tiny_of(tiny, *words):
    """`tiny`, whose options of a ResNet a network of timm does not take."""
    if "backbone=timm" not in words:
        return tiny(*words)
    plain = [word for word in tiny_words(*words) if not word.startswith("backbone.")]
    return load_config([*plain, f"runs={tiny('seed=0').runs}", *words])


def train_both(ranks, configs):
    """Without and with evaluations, one after the other on the same processes; returns the folder that holds both."""
    for config in configs:
        folder = train(ranks, config)
    return folder.parents[1]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_share_the_pictures_and_keep_their_bits(tiny, strategy):
    """Under FSDP2 each holds a part of every weight; the teacher's batch norms train on while it is looked at."""
    words = [*SHORT, "method=byol", "penalty=srip", "evaluation.network=teacher", "trainer.max_steps=3"]
    one = train(ALONE, tiny(*words, *LOOKS))
    words += [f"trainer={strategy}", "trainer.timeout=60"]
    runs = [f"{one.parent}/{name}" for name in ("without", "with")]
    configs = [tiny(*words, *looks, f"runs={run}") for run, looks in zip(runs, ([], LOOKS), strict=True)]
    launch_processes(2, "gloo", 60.0, partial(train_both, configs=configs))
    [without], [looked] = (list(Path(run).iterdir()) for run in runs)
    assert bits(without) == bits(looked)
    assert not (without / "evaluations.csv").exists()
    expected, found = untimed(one), untimed(looked)
    assert [row["step"] for row in found] == [2, 3] == [row["step"] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=0.02, abs=0.04)  # half a batch a process rounds otherwise


@pytest.mark.parametrize(
    ("every", "accumulate", "steps"),
    [
        (1, 1, [2, 4, 6]),
        (2, 1, [4]),
        (9, 1, []),
        (1, 3, [1, 2, 3, 4, 5, 6]),  # steps of three batches: epochs end within step 1, with step 2, within step 3, ...
        (3, 3, [2, 4, 6]),
        (5, 4, [3, 5]),
        (0.5, 1, [1, 2, 3, 4, 5, 6]),
        (1.5, 1, [3, 6]),
        (0.1, 1, [1, 2, 3, 4, 5, 6]),  # no more than once a step
    ],
)
def test_it_is_due_where_a_multiple_of_the_epochs_has_ended(every, accumulate, steps):
    arguments = {"file": None, "probe": None, "monitor": None, "method": build("simsiam"), "network": "student"}
    evaluations = Evaluations(**arguments, order=Order(64, 24, seed=0), every=every, accumulate=accumulate)
    assert [step for step in range(1, 7) if evaluations._is_due(step)] == steps


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        ([], [2, 4, 5], [1, 2, 2.5]),
        (["trainer.max_steps=1", "trainer.log_every=100"], [1], [0.5]),  # fewer than an epoch has
    ],
)
def test_it_looks_every_so_many_epochs_and_at_the_end(tiny, words, steps, epochs):
    rows = evaluations(train(ALONE, tiny(*SHORT, *LOOKS, *words)))
    assert [row["step"] for row in rows] == steps
    assert [row["epoch"] for row in rows] == epochs


def test_the_scores_are_those_of_the_encoder_as_it_stands(tiny):
    encoders = []

    class Keep(Callback):
        def on_train_end(self, trainer, module):
            encoders.append((module.method.encoder.eval(), module.views, module.penalty))

    words = ["evaluation.sample=5000", "evaluation.neighbors=1", "evaluation.every=100", "penalty=srip"]
    folder = train(ALONE, tiny(*words), [Keep()])
    [row] = evaluations(folder)
    [(encoder, views, penalty)] = encoders
    splits = Digits().load()  # fewer than the sample: all take part
    with torch.no_grad():
        train_features, test_features = (
            encoder(views.plain(images.batch(torch.arange(len(images))))) for images in (splits.train, splits.test)
        )
    nearest = KNeighborsClassifier(1, metric="cosine").fit(train_features, splits.train.labels)
    assert row["knn"] == pytest.approx(nearest.score(test_features, splits.test.labels), abs=0.005)  # ties
    assert row["effective_rank"] == pytest.approx(effective_rank(representation_eigenvalues(test_features)), rel=1e-3)
    assert row["rankme"] == pytest.approx(rankme(test_features), rel=1e-3)
    layers = {key.removeprefix("penalty/"): value for key, value in row.items() if key.startswith("penalty/")}
    assert layers == {each.name: pytest.approx(each.value) for each in penalty.report()}
    assert 0 < row["seconds"] < 60


class Crash(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 4:
            raise RuntimeError("the power went out")


def test_a_resumed_run_writes_the_rows_after_its_checkpoint_anew(tiny):
    config = tiny(*SHORT, *LOOKS, "trainer.checkpoint_every=3", "resume=auto")
    with pytest.raises(RuntimeError, match="the power went out"):
        train(ALONE, config, [Crash()])
    [folder] = Path(config.runs).iterdir()
    before = untimed(folder)
    assert [row["step"] for row in before] == [2, 4]
    assert train(ALONE, config) == folder
    after = untimed(folder)
    assert [row["step"] for row in after] == [2, 4, 5]
    assert after[:2] == before


def untimed(folder):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in evaluations(folder)]


def test_whether_a_run_is_looked_at_is_no_part_of_it(tiny):
    config = tiny(*SHORT, "trainer.checkpoint_every=1", "resume=auto")
    with pytest.raises(RuntimeError, match="the power went out"):
        train(ALONE, config, [Crash()])
    folder = train(ALONE, tiny(*SHORT, *LOOKS, "resume=auto"))
    assert len(list(Path(config.runs).iterdir())) == 1
    assert [row["step"] for row in evaluations(folder)] == [5]


def test_its_seconds_count_in_no_step_and_are_said(tiny, monkeypatch, capsys):
    probe = RunningProbe.__call__

    def slow(self, encoder, views):
        time.sleep(0.5)
        return probe(self, encoder, views)

    monkeypatch.setattr(RunningProbe, "__call__", slow)
    words = [*SHORT, "trainer.batch_size=64", "trainer.max_steps=6", "trainer.log_every=1"]  # an epoch each
    measured = []

    class Keep(Callback):
        def on_train_end(self, trainer, module):
            [monitor] = [each for each in trainer.callbacks if isinstance(each, Monitor)]
            measured.extend(monitor.step_seconds)

    folder = train(ALONE, tiny(*words, *LOOKS), [Keep()])
    assert len(measured) == 6
    assert max(measured[1:]) < 0.5
    rows = evaluations(folder)
    assert len(rows) == 6
    assert min(row["seconds"] for row in rows) > 0.5
    said = capsys.readouterr().out
    line = r"step 3, epoch 3: kNN [\d.]+%, effective rank [\d.]+, RankMe [\d.]+ \(took 0\.\d+ s; [\d.]+% of the time"
    assert re.search(line, said)
    assert float(re.findall(r"([\d.]+)% of the time so far", said)[-1]) > 50


def test_loggers_have_the_scores_too(tiny):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = train(ALONE, tiny(*SHORT, *LOOKS, "trainer.tensorboard=true"))
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    layers = [key for key in evaluations(folder)[0] if key.startswith("penalty/")]
    assert layers[0] == "penalty/conv1.weight"
    for tag in ("evaluation/knn", "evaluation/effective_rank", "evaluation/rankme", "evaluation/seconds", *layers):
        assert [event.step for event in events.Scalars(tag)] == [2, 4, 5]
    values = [event.value for event in events.Scalars("evaluation/rankme")]
    assert values == pytest.approx([row["rankme"] for row in evaluations(folder)])


def test_without_labels_there_are_ranks_alone(tiny, monkeypatch, capsys):
    pictures = MemoryImages(Noise().load().train.pixels, torch.full((64,), -1))
    splits = Splits(train=None, test=None, classes=[], unlabeled=pictures)
    config = tiny(*SHORT, *LOOKS)
    stream = runs.build_stream(config, splits, ALONE)
    module = runs.build_module(config, with_channels(splits), ALONE, steps=len(stream))
    with runs.open_run(config, ALONE) as run:
        runs.fit(config, run, module, stream, splits, ALONE, [])
    rows = evaluations(run.folder)
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert all(math.isnan(row["knn"]) and row["rankme"] > 1 for row in rows)
    assert "kNN" not in capsys.readouterr().out


def with_channels(splits):
    """For the encoder, which takes the number of channels from labeled pictures so far."""
    return Splits(splits.pretraining, splits.pretraining, [], splits.unlabeled)


def test_the_sample_is_drawn_once_by_the_seed(tiny):
    settings, splits = tiny("evaluation.sample=30").evaluation, Digits().load()
    first, same, other = (RunningProbe(splits, settings, seed, ALONE) for seed in (0, 0, 1))
    for name in ("bank", "queries"):
        pixels = [getattr(probe, name).pixels for probe in (first, same, other)]
        assert len(pixels[0]) == 30
        assert torch.equal(pixels[0], pixels[1])
        assert not torch.equal(pixels[0], pixels[2])


def test_pictures_that_cannot_be_decoded_stop_it_in_words(tiny):
    class Broken(MemoryImages):
        def read(self, indices):
            return self.pixels[:0], torch.zeros(len(indices), dtype=torch.bool)

        def select(self, indices):
            return Broken(self.pixels[indices], self.labels[indices])

    images = Broken(torch.zeros(9, 1, 8, 8, dtype=torch.uint8), torch.zeros(9, dtype=torch.long))
    probe = RunningProbe(Splits(images, images, ["a"]), tiny(*LOOKS).evaluation, 0, ALONE)
    views = Views(plan_views("two", ViewSettings(), 8), 8, Digits().load().train.sample(), seed=0)
    with pytest.raises(TrainerError, match=r"drew 9 pictures, and fewer than 2 .* raise evaluation\.sample"):
        probe(torch.nn.Flatten(), views)


def test_the_report_draws_what_was_seen(tiny):
    folder = pretrain(tiny(*SHORT, *LOOKS, "trainer.tensorboard=false"))
    page = (folder / "report.html").read_text()
    assert "<h2>While it trained</h2>" in page
    record = RunRecord.read(folder)
    assert record.evaluations["step"] == [2, 4, 5]
    without = groups_of([replace(record, evaluations={})])
    for draw in (plots.running_scores, plots.layer_residuals):
        assert "<svg" in draw(groups_of([record]))
        assert draw(without) == ""
