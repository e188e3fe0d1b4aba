"""Many encoders on many data sets: each score a file, which is taken as it is where it is there already."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ..config.evaluation_data import one_of_many
from ..config.exam_words import ExamSettings
from ..data import Splits
from ..errors import TrainerError
from ..probes.protocols import Exam, Protocol
from ..report.evaluated import read_evaluations, write_evaluation
from ..report.finished import read_finished
from ..report.record import RunRecord
from ..report.transfer_table import Score
from .evaluation_files import evaluate_with, evaluation_name, options_of
from .exams import build_exam, load_pictures, own_data
from .trained import Trained


def encoder_paths(paths: Sequence[Path]) -> list[Path]:
    """Files and runs as they are given; in the place of a sweep's folder, or one that holds runs, its finished runs."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir() and not (path / "config.yaml").is_file():
            finished = read_finished([path])
            for reason in finished.missing:
                print(f"Left out: {reason}", flush=True)
            found |= dict.fromkeys(run.folder for run in finished.runs)
        else:
            found[path] = None
    return list(found)


def score_all(
    encoders: Sequence[Trained],
    sets: Mapping[str, dict[str, Any]],
    protocols: Sequence[Protocol],
    settings: ExamSettings,
    again: bool,
) -> Iterator[Score]:
    """Of every encoder on every data set (by its name, with its options) by every protocol, as they are found.

    What can't be scored says why, and stops nothing else. With `again` earlier scores are replaced.
    """
    runs = [record_of(trained) for trained in encoders]
    for data, options in sets.items():
        pictures = PicturesOf(data, options)  # one set's at a time are in memory
        for trained, run in zip(encoders, runs, strict=True):
            yield from scores_of(trained, run, pictures, protocols, settings, again)


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
                self.loaded[kind] = load_pictures(trained, self.data, self.options, one_of_many(self.data))
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
    trained: Trained,
    run: RunRecord,
    pictures: PicturesOf,
    protocols: Sequence[Protocol],
    settings: ExamSettings,
    again: bool,
) -> Iterator[Score]:
    """Of one encoder on one data set."""
    asked = pictures.data, pictures.options
    exam: Exam | None = None
    for protocol in protocols:
        name = evaluation_name(protocol, trained, settings, *asked)
        file = trained.results_folder / f"{name}.json"
        content, reason = None if again else found_earlier(run, trained, protocol, name), ""
        try:
            if content is None:
                exam = exam or build_exam(trained, pictures.for_encoder(trained), settings, progress=True)
                protocol.check(exam)
                content = evaluate_with(protocol, exam, trained, settings, *asked)
                write_evaluation(trained.results_folder, name, content)
        except TrainerError as error:
            reason = str(error)
        except Exception as error:  # of a source or a protocol of the user's own
            reason = f"{type(error).__name__}: {error}"
        yield Score(run, protocol.name, pictures.data, content, None if reason else file, reason)


def found_earlier(run: RunRecord, trained: Trained, protocol: Protocol, name: str) -> dict[str, Any] | None:
    """What an earlier evaluation of that name has found; None where there is none, or not of this encoder and protocol.

    A run may have been prolonged, another encoder written to the file, and the defaults of a protocol changed.
    """
    content = run.evaluated.get(name)
    if content is None or (content.get("step"), content.get("encoder_digest")) != (trained.step, trained.digest):
        return None
    return content if content.get("options") == json.loads(json.dumps(options_of(protocol))) else None


def record_of(trained: Trained) -> RunRecord:
    """The run's; of a file one that says its name alone."""
    if trained.config is not None:
        return RunRecord.read(trained.path)
    results = {"label": trained.path.name, "settings": {"encoder": str(trained.path)}}
    evaluated = read_evaluations(trained.results_folder)
    return RunRecord(
        trained.path, results, metrics={}, weights={}, representation=[], configuration="", evaluated=evaluated
    )
