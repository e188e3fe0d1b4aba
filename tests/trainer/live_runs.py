"""Folders of runs that train, made up."""

import json
import os

METRICS = "step,loss,penalty,penalty_raw,spread,lr,images_per_second,penalty_share"


def metrics_row(step, loss=2.0, spread=0.9):
    return f"{step},{loss!r},0.001,{1000.0 / step!r},{spread!r},0.05,300.0,0.02\n"


def write_run(folder, rows=20, every=10, steps=1000, label="SimCLR + SO 1e-06", started=None, **course):
    """A run that wrote a row every `every` steps and 0.5 s a step, the last one just now, unless `started` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    metrics = folder / "metrics.csv"
    metrics.write_text(f"{METRICS}\n" + "".join(metrics_row(every * (i + 1), loss=5.0 / (i + 1)) for i in range(rows)))
    now = metrics.stat().st_mtime
    began = now - 0.5 * every * rows if started is None else started
    (folder / "progress.json").write_text(
        json.dumps({"label": label, "steps": steps, "start": 0, "started": began, **course})
    )
    return folder


def write_evaluations(folder, rows=4):
    lines = ["step,epoch,knn,effective_rank,rankme,seconds,penalty/conv1.weight"]
    lines += [f"{50 * (i + 1)},{i + 1},{0.5 + 0.1 * i!r},{10.0 + i},{20.0 + i},1.5,3.0" for i in range(rows)]
    (folder / "evaluations.csv").write_text("\n".join(lines) + "\n")


def finish(folder, **results):
    (folder / "results.json").write_text(json.dumps({"label": "SimCLR", "steps": 1000, "seconds": 90.0, **results}))


def age(folder, seconds):
    """As if the last row had been written that long ago."""
    for name in ("metrics.csv", "evaluations.csv"):
        if (folder / name).exists():
            then = (folder / name).stat().st_mtime - seconds
            os.utime(folder / name, (then, then))
