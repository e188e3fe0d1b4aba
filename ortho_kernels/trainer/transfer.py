"""Trained encoders, frozen, on other data sets than their own: one table of accuracies with 95 % intervals.

    python -m ortho_kernels.trainer.transfer RUN [RUN ...] data=digits,scripts,cifar10 data_options.cifar10.root=FOLDER

A RUN is a finished run's folder, or a file that `export` has written. Pictures are scaled to the encoder's size, and made
gray or color as its own were. Each score becomes a file in RUN/evaluations (or FILE.evaluations), which reports read; one
that is there already is taken as it is. A data set that can't be had stops no other.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from .config.command_words import asks_for_help, parse_words, words_help
from .config.evaluation_data import SourceWords, source_options
from .config.protocol_words import ProtocolSettings, chosen_protocols, with_protocol_options
from .data import Splits
from .errors import TrainerError, did_you_mean, writing
from .options import option
from .probes.protocols import PROTOCOLS, Exam, Protocol
from .report.atomic_writing import write_atomically
from .report.evaluated import read_evaluations, write_evaluation
from .report.record import RunRecord
from .report.transfer_table import Score, as_csv, format_transfer
from .runs.evaluation_files import evaluate_with, evaluation_name
from .runs.exams import ExamSettings, build_exam, load_pictures, own_data
from .runs.trained import Trained, load_trained

WITHOUT_NETWORK = ["digits", "mnist5k", "fashion_mnist", "scripts", "emoji"]


@dataclass
class TransferSettings(ExamSettings, ProtocolSettings):
    protocol: list[str] = option(["logistic"], f"how an encoder is scored: {', '.join(PROTOCOLS)}")
    data: list[str] = option(WITHOUT_NETWORK, "data sets, by the names that data= takes")
    data_options: dict[str, Any] = option({}, "options of data sets: {cifar10: {root: FOLDER}}")
    again: bool = option(False, "score again what has been scored")
    output: str | None = option(None, "FILE.csv of all scores")


def main(words: Sequence[str]) -> None:
    settings_class = with_protocol_options(TransferSettings, words)
    if asks_for_help(words):
        print(words_help(__doc__, settings_class), end="")
        return
    paths, settings = parse_words(words, settings_class)
    if not paths:
        raise TrainerError("Give the folder of a finished run, or a file that `export` has written. --help says more.")
    scores = transfer(paths, settings)
    if settings.output is not None:
        with writing(Path(settings.output).expanduser(), then="transfer again") as file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, as_csv(scores))
    print(f"\n{format_transfer(scores)}")


def transfer(paths: Sequence[Path], settings: Any) -> list[Score]:
    """Scores every encoder on every data set by every protocol; what can't be scored says why.

    Raises TrainerError, before anything is scored, for words that are wrong and for encoders that can't be read.
    """
    protocols = chosen_protocols(settings)
    sets = require_known(settings.data, settings.data_options)
    encoders = [(trained := load_trained(path, settings.network), record_of(trained)) for path in paths]
    scores: list[Score] = []
    total = len(sets) * len(encoders) * len(protocols)
    for data, options in sets.items():
        pictures = PicturesOf(data, options)  # one set's at a time are in memory
        for trained, run in encoders:
            for score in scores_of(trained, run, pictures, protocols, settings):
                scores.append(score)
                print(f"[{len(scores)}/{total}] {describe(score)}", flush=True)
    return scores


def require_known(names: Sequence[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The data sets, each with its options. Raises TrainerError for one that doesn't exist, or an option it hasn't."""
    if not names:
        raise TrainerError("data= is empty: name the data sets.")
    for name, given in options.items():
        if name not in names or not isinstance(given, dict):
            raise TrainerError(
                f"data_options.{name}: give options below the name of a data set that data= lists, as in "
                f"data_options.{names[0]}.root=FOLDER.{did_you_mean(name, names)}"
            )
    sets = {name: dict(options.get(name, {})) for name in names}
    for name, given in sets.items():
        source_options(name, given, size=32, decode_size=32, words=words_of(name))
    return sets


def words_of(data: str) -> SourceWords:
    """By which errors name a data set's options."""
    return SourceWords("data", f"data_options.{data}")


@dataclass
class PicturesOf:
    """The labeled pictures of a data set. Encoders that take pictures of one kind share them."""

    data: str
    options: dict[str, Any]
    loaded: dict[str, Splits | Exception | SystemExit] = field(default_factory=dict, repr=False)

    def for_encoder(self, trained: Trained) -> Splits:
        """Raises what kept them from being loaded, which is not tried twice."""
        kind = self._kind(trained)
        if kind not in self.loaded:
            try:
                self.loaded[kind] = load_pictures(trained, self.data, self.options, words_of(self.data))
            except (TrainerError, Exception) as error:
                self.loaded[kind] = error
        found = self.loaded[kind]
        if isinstance(found, BaseException):
            raise found
        return found

    def _kind(self, trained: Trained) -> str:
        """A run's own pictures are as the run had them, others as the encoder takes them."""
        if trained.config is not None and not self.options and self.data == own_data(trained):
            return OmegaConf.to_yaml(OmegaConf.create([trained.config.data, trained.config.evaluation]))
        preprocess = trained.preprocess
        return f"{preprocess.channels} {preprocess.size} {preprocess.decode_size}"


def scores_of(
    trained: Trained, run: RunRecord, pictures: PicturesOf, protocols: Sequence[Protocol], settings: Any
) -> Iterator[Score]:
    """Of one encoder on one data set."""
    asked = pictures.data, pictures.options
    exam: Exam | None = None
    for protocol in protocols:
        name = evaluation_name(protocol, trained, settings, *asked)
        file = trained.results_folder / f"{name}.json"
        try:
            content = None if settings.again else found_earlier(run, trained, file)
            if content is None:
                splits = pictures.for_encoder(trained)
                exam = exam or build_exam(trained, splits, settings, progress=True)
                protocol.check(exam)
                content = evaluate_with(protocol, exam, trained, settings, *asked) | {"origin": splits.origin}
                write_evaluation(trained.results_folder, name, content)
            yield Score(run, protocol.name, pictures.data, content, file)
        except TrainerError as error:
            yield Score(run, protocol.name, pictures.data, error=str(error))
        except Exception as error:  # of a source or protocol of the user's own
            yield Score(run, protocol.name, pictures.data, error=f"{type(error).__name__}: {error}")


def found_earlier(run: RunRecord, trained: Trained, file: Path) -> dict[str, Any] | None:
    """What an earlier evaluation of this encoder has found; None where there is none, or it was another encoder."""
    content = run.evaluated.get(file.stem)
    if content is None or content.get("step") != trained.step:  # a run may have been prolonged
        return None
    is_later = trained.config is not None or file.stat().st_mtime >= trained.path.stat().st_mtime
    return content if is_later else None


def record_of(trained: Trained) -> RunRecord:
    """The run's; of a file one that says its name alone."""
    if trained.config is not None:
        return RunRecord.read(trained.path)
    results = {"label": trained.path.name, "settings": {"encoder": str(trained.path)}}
    evaluated = read_evaluations(trained.results_folder)
    return RunRecord(
        trained.path, results, metrics={}, weights={}, representation=[], configuration="", evaluated=evaluated
    )


def describe(score: Score) -> str:
    """In one line."""
    if score.content is None:
        return f"{score.data}, {score.run.label}: not scored"  # the reason follows the table
    return f"{score.data}, {score.run.label}, {score.protocol}: {score.content['accuracy']:.2%}"


if __name__ == "__main__":
    main(sys.argv[1:])
