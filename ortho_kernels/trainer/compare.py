"""`python -m ortho_kernels.trainer.compare key=value ...`: a baseline and a regularized run, and one report of both.

The two differ in gamma alone: the same initial weights, the same order of images, the same views.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
from collections.abc import Sequence

from .command import help_text, split_flags
from .errors import TrainerError


def main(words: Sequence[str]) -> None:
    flags, words = split_flags(words)
    if "help" in flags:
        print(help_text(words))
        return
    from .config import load_config

    if "multirun" in flags:
        raise TrainerError(
            "A comparison compares two runs and takes no -m. For more runs: python -m ortho_kernels.trainer -m ..."
        )
    config = load_config(words)
    if config.penalty.gamma == 0:
        raise TrainerError("A comparison needs a penalty: give penalty=so or penalty=srip, and penalty.gamma above 0.")
    baseline = load_config([*words, "penalty.gamma=0", "title=null"])
    from .series import pretrain_all

    print(f"Report of both: {pretrain_all([baseline, config])}")


if __name__ == "__main__":
    main(sys.argv[1:])
