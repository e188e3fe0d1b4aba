"""A map of gamma: which strength of a penalty suits which method and network, beside what it has to beat.

    python -m ortho_kernels.trainer.map method=simclr,byol backbone=resnet18,resnet50 penalty.gamma=1e-6,1e-5 map.budget=60

The words are those of a training, with several values where they vary; those of map.* are the map's own. Each cell, such
as a method and a network, has for every seed (seed=0,1,2) its baseline, every gamma, and two controls: a decay of the same
weights, and other weight decays. Without penalty.gamma the recipe's is tried, a tenth of it, and ten times it.

Runs that are finished are taken as they are, and the others go on where they were cut off. The folder runs/map-* gets the
page (report.html), a table (map.csv), and what is known of the runs (map.json).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
import time
from collections.abc import Sequence

from .config.command_words import asks_for_help, parse_words, words_help


def main(words: Sequence[str]) -> None:
    began = time.monotonic()
    from .config.map_plan import MapWords, plan_map

    if asks_for_help(words):
        print(words_help(__doc__ or "", MapWords), end="")
        return
    own = [word for word in words if word.startswith("map.") and "=" in word]
    _, chosen = parse_words(own, MapWords)
    planned = plan_map([word for word in words if word not in own and word not in ("-m", "--multirun")], chosen.map)
    from .distributed.joining import require_alone

    require_alone("A map")
    from .runs.map_runs import MapRuns
    from .sweep import attempt

    MapRuns(planned, chosen.map, attempt, began).carry_out()


if __name__ == "__main__":
    main(sys.argv[1:])
