"""Folders that cannot be written, disks that are full, checkpoints that are broken: said plainly, nothing lost."""

import os

import pytest
import torch

from ortho_kernels.trainer.engine import checkpoints
from ortho_kernels.trainer.engine.checkpoints import AtomicFiles, checkpoint_files, read_checkpoint
from ortho_kernels.trainer.errors import TrainerError
from ortho_kernels.trainer.report.metrics_file import MetricsFile

FULL = OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_made_is_reported(run_tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match="runs=FOLDER"):
        run_tiny(f"runs={tmp_path / 'file' / 'runs'}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_reported(run_tiny, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(TrainerError, match="Permission denied"):
        run_tiny(f"runs={tmp_path / 'locked'}")


def test_runs_of_one_second_get_folders_of_their_own(run_tiny, monkeypatch):
    monkeypatch.setattr("ortho_kernels.trainer.runs.folders.time.strftime", lambda _: "20300101-000000")
    first, second = run_tiny(), run_tiny()
    assert second.name == f"{first.name}-2"


def test_a_disk_that_fills_up_while_saving_costs_no_earlier_checkpoint(tmp_path, monkeypatch):
    target = tmp_path / "step-000000001.ckpt"
    AtomicFiles().save_checkpoint({"a": torch.ones(3)}, target)

    def fill_up(checkpoint, file):
        file.write(b"half of it")
        raise FULL

    monkeypatch.setattr(checkpoints.torch, "save", fill_up)
    with pytest.raises(TrainerError, match=r"No space left on device.*Earlier checkpoints are kept"):
        AtomicFiles().save_checkpoint({"a": torch.zeros(3)}, target)
    assert torch.equal(read_checkpoint(target)["a"], torch.ones(3))
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_metrics_on_a_full_disk_are_reported(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.open(0)
    metrics.write({"step": 1, "loss": 0.5})
    metrics.close()
    metrics.file = open("/dev/full", "w")  # noqa: SIM115
    with pytest.raises(TrainerError, match="No space left on device"):
        metrics.write({"step": 2, "loss": 0.5})
    metrics.close()


def test_a_truncated_checkpoint_is_named(run_tiny):
    folder = run_tiny("trainer.checkpoint_every=1")
    newest, before = checkpoint_files(folder / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:1000])
    (folder / "results.json").unlink()
    with pytest.raises(TrainerError, match=r"step-000000002\.ckpt cannot be read.*the one before"):
        run_tiny("trainer.checkpoint_every=1", "resume=auto")
    newest.unlink()
    assert run_tiny("trainer.checkpoint_every=1", "resume=auto") == folder
    assert checkpoint_files(folder / "checkpoints") == [newest, before]


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"\x80\x02}"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "step-000000001.ckpt"
    path.write_bytes(content)
    with pytest.raises(TrainerError, match="cannot be read"):
        read_checkpoint(path)


def test_a_folder_without_checkpoints_cannot_be_resumed(run_tiny, tmp_path):
    with pytest.raises(TrainerError, match="no checkpoint in it"):
        run_tiny(f"resume={tmp_path}")
