"""A study without training: records of methods, penalties and seeds with all that figures draw, the same each time."""

from dataclasses import replace

import numpy as np
from made_up_runs import made_up

METHODS = ("SimCLR", "BYOL")
PENALTIES = {"baseline": 0.0, "SO": 2e-4, "SRIP": 2e-2, "decay": 1e-3}
STAGES = ("layer1", "layer2", "layer3", "layer4")


def study(methods=METHODS, penalties=PENALTIES, seeds=3, layers=20, steps=600):
    """As many runs as the product of the three; `penalties`: gammas by name, one or several."""
    return [
        complete(
            f"{method} {penalty}" if not gamma else f"{method} {penalty} {gamma:g}",
            settings={
                "method.name": method.lower(),
                "penalty.name": "so" if penalty == "baseline" else penalty.lower(),
                "penalty.gamma": gamma,
                "seed": seed,
            },
            layers=layers,
            steps=steps,
        )
        for method in methods
        for penalty, gammas in penalties.items()
        for gamma in np.atleast_1d(gammas).tolist()
        for seed in range(seeds)
    ]


def complete(label, settings=(), layers=20, steps=600, width=64):
    """A run with curves, running scores and all spectra; they depend on the label and the seed."""
    seed = dict(settings).get("seed", 0)
    kind = sum(map(ord, label)) % 7
    random = np.random.default_rng([seed, kind])
    step = np.unique(np.r_[1, np.arange(10, steps + 1, 10)]).astype(float)
    looks = step[step % (steps // 4) == 0]
    decay = 0.5 + 0.15 * kind
    names = [f"layer{1 + 4 * i // layers}.{i}.conv.weight" for i in range(layers)]
    features = (
        random.normal(size=(200, width))
        @ np.diag(np.arange(1, width + 1) ** -decay)
        @ random.normal(size=(width, width))
    )
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(features.T)))[::-1]
    evaluations = {
        "step": looks,
        "knn": 0.6 + 0.2 * looks / steps + 0.01 * kind + random.normal(0, 0.004, len(looks)),
        "effective_rank": 3 + 6 * looks / steps + kind,
        "rankme": 12 + 20 * looks / steps + kind,
        **{f"penalty/{name}": (1 + i) * np.exp(-kind * looks / steps) for i, name in enumerate(names)},
    }
    run = made_up(
        label,
        settings,
        knn=0.78 + 0.01 * kind + random.normal(0, 0.004),
        linear_probe=0.8 + 0.01 * kind + random.normal(0, 0.003),
        representation_effective_rank=6 + kind + random.normal(0, 0.2),
    )
    return replace(
        run,
        metrics={
            "step": step.tolist(),
            "loss": (2 + 4 / np.sqrt(step) + random.normal(0, 0.05, len(step))).tolist(),
            "penalty_raw": (2000 * np.exp(-kind * step / steps) + 20).tolist(),
            "spread": np.clip(0.6 + 0.05 * kind + random.normal(0, 0.02, len(step)), 0, 1).tolist(),
        },
        evaluations={name: np.asarray(values).tolist() for name, values in evaluations.items()},
        weights={
            name: (1 + (0.5 - kind / 14) * np.linspace(1, -1, 16 * (1 + i // 5))).tolist()
            for i, name in enumerate(names)
        },
        representation=eigenvalues.tolist(),
        spectra={
            "stages": {name: (np.arange(1.0, 16 * 2**i + 1) ** -decay).tolist() for i, name in enumerate(STAGES)},
            "correlation": np.corrcoef(features.T).tolist(),
            "summary": {"alpha_req": 2 * decay, "largest_correlation": 0.9},
        },
    )
