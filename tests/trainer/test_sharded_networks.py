"""trainer=fsdp2 on the networks that people train, at real widths: two processes against one."""

from functools import partial

import pytest
import torch
from bare_runs import train
from PIL import Image

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import load_splits
from ortho_kernels.trainer.distributed.processes import ALONE, launch_processes
from ortho_kernels.trainer.engine.checkpoints import checkpoint_files, read_checkpoint
from ortho_kernels.trainer.report.metrics_file import read_metrics
from ortho_kernels.trainer.runs.pretrain import build_module, instantiate

WORDS = [
    "method=byol",
    "penalty=srip",
    "method.hidden=16",
    "method.projection=7",  # no multiple of two processes
    "optimizer.warmup=0",
    "trainer.batch_size=8",
    "trainer.max_steps=2",
    "trainer.log_every=1",
    "trainer.tensorboard=false",
]
# Color images are those of the folder, gray ones the digits.
NETWORKS = {
    "resnet18-color": ["backbone=resnet18", "backbone.width=8", "data=imagefolder", "data.size=16"],
    "resnet18-gray": ["backbone=resnet18", "backbone.width=8", "data=digits"],
    "resnet50": ["backbone=resnet50", "data=imagefolder", "data.size=16", "trainer.max_steps=1"],
    "wrn28_2": ["backbone=wrn28_2", "data=digits"],
    "vit_tiny-color": ["backbone=vit_tiny", "backbone.depth=2", "data=imagefolder", "data.size=16"],
    "vit_tiny-gray": ["backbone=vit_tiny", "backbone.depth=2", "data=digits"],
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve pictures of noise in two classes, for training and for testing."""
    root = tmp_path_factory.mktemp("pictures")
    drawn = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for index in range(12):
            path = root / split / f"class-{index % 2}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = torch.randint(256, (16, 16, 3), dtype=torch.uint8, generator=drawn)
            Image.fromarray(noise.numpy(), "RGB").save(path)
    return root


def config_of(words, folder, pictures):
    root = [f"data.root={pictures}"] if "data=imagefolder" in words else []
    return load_config([*WORDS, *words, *root, f"runs={folder}"])


def train_each(ranks, folder, pictures, words):
    for name, network in NETWORKS.items():
        train(ranks, config_of([*network, *words], folder / name, pictures))
    return folder


def resume(ranks, config):
    """The state after two steps, and that of a run that went on after the first; on every rank."""
    folder = train(ranks, config)
    newest = checkpoint_files(folder / "checkpoints")[0]
    whole = read_checkpoint(newest)
    ranks.broadcast(newest.unlink() if ranks.rank == 0 else None)
    assert train(ranks, config) == folder
    for name, value in read_checkpoint(newest)["state_dict"].items():
        assert torch.equal(value, whole["state_dict"][name]), name
    return folder


def weights_before(config):
    """As they are before the first step."""
    module = build_module(config, load_splits(instantiate(config.data), ALONE), ALONE, steps=1)
    return {name: value.clone() for name, value in module.state_dict().items()}


def outcome(runs):
    [folder] = runs.iterdir()
    losses = [row["loss"] for row in read_metrics(folder / "metrics.csv")]
    return read_checkpoint(checkpoint_files(folder / "checkpoints")[0])["state_dict"], losses


def distance(ours, theirs):
    """Of all weights and statistics together."""
    return sum((ours[name] - value).double().square().sum() for name, value in theirs.items()).sqrt().item()


@pytest.mark.slow
def test_real_networks_train_shared_out_as_they_do_whole(tmp_path, pictures):
    train_each(ALONE, tmp_path / "whole", pictures, [])
    work = partial(train_each, folder=tmp_path / "shared", pictures=pictures, words=["trainer=fsdp2"])
    launch_processes(2, "gloo", 300.0, work)
    for name, network in NETWORKS.items():
        expected, losses = outcome(tmp_path / "whole" / name)
        found, shared_losses = outcome(tmp_path / "shared" / name)
        # Half a batch a process rounds its statistics otherwise, which dozens of batch norms of few pixels amplify.
        assert shared_losses[0] == pytest.approx(losses[0], rel=1e-5), name
        assert shared_losses == pytest.approx(losses, rel=1e-2), name
        assert found.keys() == expected.keys()
        moved = distance(weights_before(config_of(network, tmp_path, pictures)), expected)
        assert distance(found, expected) < 0.05 * moved, name


# Prototypes that the first step leaves as they are, so that they have no state of the optimizer when it is saved.
FROZEN = ["method=dino", "method.prototypes=16", "method.freeze=0.5", "data.views.local.count=1", "optimizer=adamw"]


@pytest.mark.parametrize("method", [[], FROZEN], ids=["byol", "frozen prototypes"])
def test_a_run_of_shared_weights_goes_on_where_it_stopped(tmp_path, pictures, method):
    words = [*NETWORKS["resnet18-color"], *method, "trainer=fsdp2", "trainer.checkpoint_every=1", "resume=auto"]
    launch_processes(2, "gloo", 300.0, partial(resume, config=config_of(words, tmp_path, pictures)))
