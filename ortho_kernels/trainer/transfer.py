"""Trained encoders, frozen, on other data sets than their own: one table of accuracies with 95 % intervals.

    python -m ortho_kernels.trainer.transfer RUN [RUN ...] data=digits,scripts,cifar10 data_options.cifar10.root=FOLDER

A RUN is a finished run's folder, a sweep's, one that holds runs, or a file that `export` has written. Pictures are scaled to
the encoder's size, and made gray or color as its own were. Each score becomes a file in RUN/evaluations, or in
FILE.evaluations, which reports read. One that is there already is taken as it is. A set that can't be had stops no other.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config.command_words import runs_and_options
from .config.evaluation_data import one_of_many, source_options
from .config.exam_words import ExamSettings, chosen_protocols, with_protocol_options
from .errors import TrainerError, did_you_mean, writing
from .options import option
from .probes.protocols import PROTOCOLS

if TYPE_CHECKING:
    from .report.transfer_table import Score

WITHOUT_NETWORK = ["digits", "mnist5k", "fashion_mnist", "scripts", "emoji"]  # with Debian's and Python's packages


@dataclass
class TransferSettings(ExamSettings):
    protocol: list[str] = option(["logistic"], f"how an encoder is scored: {', '.join(PROTOCOLS)}")
    data: list[str] = option(WITHOUT_NETWORK, "data sets, by the names that data= takes")
    data_options: dict[str, Any] = option({}, "options of data sets: {cifar10: {root: FOLDER}}")
    again: bool = option(False, "score again what has been scored")
    output: str | None = option(None, "FILE.csv of all scores")


def main(words: Sequence[str]) -> None:
    settings_class = with_protocol_options(TransferSettings, words)
    if (given := runs_and_options(words, __doc__ or "", settings_class)) is None:
        return
    paths, settings = given
    transfer(paths, settings)


def transfer(paths: Sequence[Path], settings: Any) -> "list[Score]":
    """Scores every encoder on every data set by every protocol, writes the files, and prints the table.

    Raises TrainerError, before anything is scored, for words that are wrong and for encoders that can't be read.
    """
    protocols = chosen_protocols(settings)
    sets = known_sets(settings.data, settings.data_options)
    if settings.output is not None and Path(settings.output).expanduser().is_dir():
        raise TrainerError(f"output={settings.output} is a folder: give the file to write, such as transfer.csv in it.")
    from .report.atomic_writing import write_atomically
    from .report.transfer_table import as_csv, describe, format_transfer
    from .runs.many_exams import encoder_paths, score_all
    from .runs.trained import load_trained

    encoders = [load_trained(path, settings.network) for path in encoder_paths(paths)]
    total = len(sets) * len(encoders) * len(protocols)
    scores = []
    for number, score in enumerate(score_all(encoders, sets, protocols, settings, settings.again), start=1):
        print(f"[{number}/{total}] {describe(score)}", flush=True)
        scores.append(score)
    if settings.output is not None:
        with writing(Path(settings.output).expanduser(), then="transfer again") as file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, as_csv(scores))
    print(f"\n{format_transfer(scores)}")
    return scores


def known_sets(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The data sets, each with its options. Raises TrainerError for one that doesn't exist, or an option it hasn't."""
    if not names or len(set(names)) < len(names):
        raise TrainerError(f"data={','.join(names)}: name each data set once, and one at least.")
    for name, given in options.items():
        if name not in names or not isinstance(given, dict):
            raise TrainerError(
                f"data_options.{name}: give options below the name of a data set that data= lists, as in "
                f"data_options.{names[0]}.root=FOLDER.{did_you_mean(name, names)}"
            )
    sets = {name: dict(options.get(name, {})) for name in names}
    for name, given in sets.items():
        source_options(name, given, size=32, decode_size=32, words=one_of_many(name))
    return sets


if __name__ == "__main__":
    main(sys.argv[1:])
