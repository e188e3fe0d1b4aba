"""Finished runs without training: records whose figures a test chooses."""

from pathlib import Path

from ortho_kernels.trainer.report.record import RunRecord

SETTINGS = {"method.name": "simclr", "data.name": "digits", "penalty.name": "so", "penalty.gamma": 1e-4, "seed": 0}
MACHINE = {"processor": "made up", "torch": "2.10"}


def made_up(label="run", settings=(), evaluated=(), folder=None, **results):
    """A record of a run. `settings` and `results` go over those of a whole run; None removes one."""
    defaults = {
        "label": label,
        "knn": 0.5,
        "linear_probe": 0.625,
        "chance": 0.1,
        "train_images": 100,
        "test_images": 50,
        "representation_effective_rank": 3.25,
        "representation_images": 50,
        "representation_dimensions": 8,
        "penalty_raw": 12.0,
        "steps": 1000,
        "planned_steps": 1000,
        "train_size": 2000,
        "images_per_second": 640.0,
        "step_ms": 100.0,
        "penalty_ms": 1.25,
        "penalty_share": 0.0125,
        "machine": MACHINE,
    }
    chosen = {key: value for key, value in {**defaults, **results}.items() if value is not None}
    chosen["settings"] = {key: value for key, value in {**SETTINGS, **dict(settings)}.items() if value is not None}
    return RunRecord(
        folder=Path(folder or f"runs/{label}-{chosen['settings'].get('seed')}"),
        results=chosen,
        metrics={"step": [1.0, 2.0], "loss": [2.0, 1.5], "penalty_raw": [5.0, 4.0], "spread": [0.9, 0.8]},
        weights={"layer0.weight": [2.0, 1.0]},
        representation=[1.0, 1e-9, 0.0],
        configuration=f"# {label}\n",
        evaluated=dict(evaluated),
    )
