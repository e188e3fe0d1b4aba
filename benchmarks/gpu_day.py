"""All that a card can tell, by one command: `python benchmarks/gpu_day.py --seconds 400`.

Stages run in order of value (see `gpu/stages.py`), each in a process group and a time box of its own. Whatever becomes
of one, the next one starts. It needs no installed package and no network. In the folder `--out`:

results.jsonl  a line for each finding, and one for each stage: its status, and why where that is not `ok`
log.txt        all that the stages printed
ncu.csv, *.xml, tuned/   Nsight Compute's table, what became of each test, the tuned configuration of the Triton kernels
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

if __package__ in (None, ""):  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import arguments as accepted
from benchmarks.checkout import commit
from benchmarks.gpu import findings, goals, json_lines, time_box
from benchmarks.gpu.stages import CIFAR10, ROOT, TRAINING, Options, Stage, all_stages
from benchmarks.gpu_day_figures import append, facts, figures, table

LEAST_SECONDS = 5.0  # in which a stage can show anything at all
FOLDER = ROOT / "benchmarks" / "results" / "gpu_day"
SUMMARY_LINES, SUMMARY_WIDTH = 60, 320  # of figures: what reads the end of this program's output shall see them all
PRINTED_BYTES = 2**22  # of a stage, its last: the reason stands at the end, and a stage may print without end
STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Stopped(BaseException):
    """The day was told to end, by a signal."""


class Day:
    """One run of the stages: its folder, the end of its time, and what was found so far.

    Raises `BlockingIOError` while another day writes to the folder.
    """

    def __init__(self, options: Options, seconds: float, environment: Mapping[str, str]) -> None:
        self.options, self.environment = options, environment
        self.end = time.monotonic() + seconds
        self.findings: list[dict] = []
        options.out.mkdir(parents=True, exist_ok=True)
        self.results = options.out / "results.jsonl"
        self.log = options.out / "log.txt"
        self._lock = self.log.open("a")  # given up with this process, however it ends
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in (self.results, self.log, options.running):
            path.write_text("")

    def note(self, finding: dict) -> None:
        """Keeps a finding, in memory and on disk: as a whole line, or not at all where the disk is full."""
        self.findings.append(finding)
        with self.results.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                line = json.dumps(finding).encode() + b"\n"
                if file.write(line) < len(line):
                    raise OSError("no room for the whole line")
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                say(f"not in {self.results.name}: {error}: {json.dumps(finding)}")

    def spend(self, stages: Sequence[Stage]) -> None:
        """Runs the stages one after the other; what a signal leaves undone has an entry all the same."""
        for position, stage in enumerate(stages):
            try:
                self.run(stage)
            except Stopped as signal_:
                for other in stages[position:]:
                    self.conclude(other, "not run", f"the day was stopped ({signal_})", 0.0)
                return
            except Exception as error:  # of what reads a stage's files, say: it costs that stage alone
                self.conclude(stage, "failed", f"gpu_day.py itself: {type(error).__name__}: {error}", 0.0)

    def run(self, stage: Stage) -> None:
        """One stage: its command within its box, its findings, its entry."""
        left = self.end - time.monotonic()
        path = [word for word in self.environment["PYTHONPATH"].split(os.pathsep) if word] + sys.path
        if (reason := stage.reason_against(path)) is not None:
            return self.conclude(stage, "not run", reason, 0.0)
        if left < LEAST_SECONDS:
            return self.conclude(stage, "not run", "no time left", 0.0)
        box = min(stage.seconds, left)
        say(f"{stage.name:18} at most {box:.0f} s, {left:.0f} s left ...")
        began = self.log.stat().st_size
        try:
            with self.log.open("ab", buffering=0) as log:
                command = list(stage.command(box))
                log.write(f"\n===== {stage.name}: {' '.join(command)}\n".encode())
                began = self.log.stat().st_size
                outcome = time_box.run(command, box, log, {**self.environment, **stage.environment}, ROOT)
        except OSError as error:
            return self.conclude(stage, "failed", f"could not be started: {error}", 0.0)
        finally:
            self.collect(stage, began)
        self.judge(stage, outcome, box, self.printed(began))

    def printed(self, began: int) -> str:
        """What the log holds from there on, or the end of it."""
        with self.log.open("rb") as file:
            file.seek(max(began, self.log.stat().st_size - PRINTED_BYTES))
            return file.read().decode(errors="replace")

    def collect(self, stage: Stage, began: int) -> None:
        """Takes over what the stage found, however it ended."""
        found = list(json_lines.read(self.options.running))
        self.options.running.write_text("")
        if stage.junit is not None:
            found += findings.tested(stage.junit)
        for finding in [*found, *findings.printed_figures(self.printed(began))]:
            self.note({"stage": stage.name, **finding})

    def judge(self, stage: Stage, outcome: time_box.Outcome, box: float, printed: str) -> None:
        """The stage's entry, by how its command ended and what it found."""
        found = [finding for finding in self.findings if finding.get("stage") == stage.name]
        tests = findings.verdict(found) if stage.junit is not None else None
        if outcome.code is None:
            note = f"its {box:.0f} s were over" + (f"; {tests}" if tests else "")
            self.conclude(stage, "out of time", note, outcome.seconds)
        elif tests is not None:
            why = tests if any(finding.get("unit") == "tests" for finding in found) else findings.reason(printed)
            self.conclude(stage, "failed", why, outcome.seconds)
        elif outcome.code != 0:
            by = f"{signal.Signals(-outcome.code).name}: " if outcome.code < 0 else ""
            why = findings.reason(printed)
            parts = [error for error in _errors(found) if why not in error]
            self.conclude(stage, "failed", "; ".join([by + why, *parts[:3]]), outcome.seconds)
        else:
            self.conclude(stage, "ok", "; ".join(_errors(found)[:3]), outcome.seconds)

    def conclude(self, stage: Stage, status: str, reason: str, seconds: float) -> None:
        entry = {"stage": stage.name, "status": status, "seconds": round(seconds, 1), "reason": reason}
        self.note(entry)
        say(_row(entry))

    def summary(self) -> str:
        """The card, the figures, a line a case, which goals were met, and last what each stage came to."""
        known = facts(self.findings)
        shown = list(_lines(self.findings))
        more = [f"... and {len(shown) - SUMMARY_LINES} lines more in {self.results}"] * (len(shown) > SUMMARY_LINES)
        entries = [_row(finding) for finding in self.findings if "status" in finding]
        about = ", ".join(f"{name} {known[name]}" for name in _NAMED if known.get(name))
        card = f"{known.get('card', 'no facts')}, {about}"
        lines = [*(line[:SUMMARY_WIDTH] for line in shown[:SUMMARY_LINES]), *more]
        return "\n".join(["", card, *lines, "", goals.table(self.findings), "", *entries])


def say(text: str) -> None:
    """Prints; that nobody reads it any more ends no day."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails with it once more in the end


def _lines(findings: Sequence[dict]) -> Iterator[str]:
    """The figures for people. Times of `penalties.py` are forward / forward and backward."""
    grouped: dict[str, list[str]] = {}
    for finding in (finding for finding in findings if "stage" in finding):
        title = " ".join(finding[name] for name in ("penalty", "model", "dtype", "kernel") if name in finding)
        words = grouped.setdefault(f"{finding['stage']}: {title}".removesuffix(" ").removesuffix(":"), [])
        for name, measured in (finding.get("contestants") or {}).items():
            times = [each["median"] for key, each in measured.items() if key in ("forward_us", "both_us") and each]
            words.append(f"{name} {'/'.join(f'{time:.4g}' for time in times)} us")
        if "value" in finding:
            words += [f"{case} {value:.4g} {unit}".strip() for case, value, unit in figures(finding)]
            words[-1] = words[-1].removeprefix(f"{title} ")
        if "test" in finding:
            words.append(f"{finding['test']}: {finding['error']}")
        if "summary" in finding:
            words.append(finding["summary"])
    yield from (f"{title}: {', '.join(words)}" for title, words in grouped.items() if words)


_NAMED = ("driver", "torch", "triton", "commit", "CUDA library")


def _row(entry: dict) -> str:
    return f"{entry['stage']:18} {entry['status']:12}{entry['seconds']:7.1f} s  {entry['reason']}".rstrip()


def _errors(found: Sequence[dict]) -> list[str]:
    """Parts of a stage that failed while the rest of it went on."""
    errors = [f"{finding['case']}: {finding['error']}" for finding in found if "error" in finding and "case" in finding]
    for finding in found:
        case = " ".join(str(finding[name]) for name in ("penalty", "model", "dtype") if name in finding)
        errors += [f"{case} {name}: {why}" for name, why in (finding.get("left_out") or {}).items()]
    return [error[:120] for error in errors]


def surroundings(scratch: Path) -> dict[str, str]:
    """The environment of all stages: they import this checkout, and what they compile goes to a scratch folder."""
    before = [word for word in os.environ.get("PYTHONPATH", "").split(os.pathsep) if word]
    defaults = {"TRITON_CACHE_DIR": str(scratch / "triton"), "OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "PASSIVE"}
    path = os.pathsep.join([str(scratch / "site"), str(ROOT), *before])
    return {**defaults, **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def selected(stages: Sequence[Stage], only: Sequence[str], skip: Sequence[str]) -> list[Stage]:
    """The stages that were asked for, by name or by a name's first word; `goals` are those that the goals need.

    `ValueError` names words that fit none.
    """
    only, skip = _spelled_out(only), _spelled_out(skip)
    words = {*goals.STAGES} | {word for stage in stages for word in (stage.name, stage.name.split()[0])}
    if unknown := [word for word in [*only, *skip] if word not in words]:
        raise ValueError(f"no stage is named {', '.join(unknown)}; the stages: {', '.join(s.name for s in stages)}")

    def named(stage: Stage, choice: Sequence[str]) -> bool:
        return stage.name in choice or stage.name.split()[0] in choice

    return [stage for stage in stages if (not only or named(stage, only)) and not named(stage, skip)]


def _spelled_out(words: Sequence[str]) -> list[str]:
    return [name for word in words for name in (goals.STAGES if word == "goals" else (word,))]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 once stages ran: what failed stands in the table and in results.jsonl. 1 where `--csv` took no figures."""
    parser = argparse.ArgumentParser(
        prog="gpu_day.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=accepted.seconds, default=400.0, help="for all stages together")
    parser.add_argument("--out", type=accepted.output_folder, default=os.environ.get("OUT") or str(FOLDER),
                        help="a folder; what an earlier day left in it is replaced (%(default)s)")  # fmt: skip
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE",
                        help="these alone, in their own order; `goals` are those that the goals need")  # fmt: skip
    parser.add_argument("--skip", nargs="+", default=[], metavar="STAGE", help="all but these")
    parser.add_argument(
        "--wheels",
        type=accepted.input_folder,
        help="a folder of wheels to use, where the trainer's needs are not installed",
    )
    parser.add_argument("--variants", type=accepted.input_folder,
                        help="a folder of other builds of _cuda.abi3.so, to be timed too")  # fmt: skip
    parser.add_argument("--training", nargs="+", default=[], metavar="KEY=VALUE",
                        help="the trainer's options, in the place of data=digits or beside those of --cifar10")  # fmt: skip
    parser.add_argument("--cifar10", type=accepted.input_file, metavar="NPZ",
                        help="CIFAR-10 as an .npz of JPEG pictures: trains SimCLR on it")  # fmt: skip
    parser.add_argument("--commit", help="what the figures are kept under, where this is no git checkout")
    parser.add_argument(
        "--csv", type=table, help="a CSV to which the figures are added in the end, such as docs/gpu.csv"
    )
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    training = options.training or TRAINING
    if options.cifar10 is not None:
        training = (*CIFAR10, f"data.root={options.cifar10}", *options.training)
    with tempfile.TemporaryDirectory(prefix="gpu_day_", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        made = Options(out, out / "running.jsonl", scratch, options.wheels, options.variants, training)
        try:
            chosen = selected(all_stages(made), options.only, options.skip)
            day = Day(made, options.seconds, surroundings(scratch))
        except BlockingIOError:
            parser.error(f"another day is writing to {out}: give another --out, or wait for its end")
        except ValueError as error:
            parser.error(str(error))
        day.note({"facts": {"date": time.strftime("%Y-%m-%d"), "commit": options.commit or commit()}})
        for number in STOPPING:
            signal.signal(number, _stop)
        day.spend(chosen)
    made.running.unlink(missing_ok=True)
    say(day.summary())
    if options.csv is not None:
        try:
            say(f"{append(day.findings, options.csv)} figures added to {options.csv}")
        except OSError as error:
            say(f"The figures were not added to {options.csv}: {error}. gpu_day_figures.py {out} adds them later.")
            return 1
    return 0


def _stop(number: int, _frame: object) -> None:
    for again in STOPPING:
        signal.signal(again, signal.SIG_IGN)  # the summary is still to come
    raise Stopped(signal.Signals(number).name)


if __name__ == "__main__":
    sys.exit(main())
