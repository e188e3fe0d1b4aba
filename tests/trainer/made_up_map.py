"""A map without training: records of cells, gammas and controls whose scores a test chooses."""

from made_up_runs import made_up

DECAY = 5e-4  # the weight decay of every cell


def runs(scores, cell=(), key="knn", **results):
    """A run for each score and seed. `scores`: by (penalty, gamma, weight decay over the cell's), a list over seeds, in
    which None is a run that is missing; or a callable of the seed."""
    found = []
    for (penalty, gamma, factor), by_seed in scores.items():
        for seed, score in enumerate(by_seed):
            if score is not None:
                settings = {
                    "method.name": "simclr",
                    "backbone.name": "resnet18",
                    **dict(cell),
                    "penalty.name": penalty,
                    "penalty.gamma": gamma,
                    "optimizer.weight_decay": factor * DECAY,
                    "seed": seed,
                }
                label = f"{penalty}={gamma:g}, weight_decay={factor * DECAY:g}, seed={seed}"
                given = {"representation_rankme": 20.0 + 10 * (score or 0.0), "seconds": 60.0, key: score, **results}
                found.append(made_up(label, settings, **given))
    return found


def none(factor=1.0):
    return ("so", 0.0, factor)


def so(gamma):
    return ("so", gamma, 1.0)


def srip(gamma):
    return ("srip", gamma, 1.0)


def decay(gamma):
    return ("decay", gamma, 1.0)
