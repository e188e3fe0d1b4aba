"""The progress of a run: a bar on a terminal, a line now and then in a log, and where it leads for those who watch."""

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm

from ..errors import writing
from ..report.atomic_writing import write_atomically

LINE_SECONDS = 15.0


class Progress:
    def __init__(self, label: str, file: Path) -> None:
        self.label = label
        self.file = file
        self.bar: tqdm | None = None
        self.text = ""
        self.last_line = 0.0
        self.total = 0

    def start(self, step: int, total: int) -> None:
        """From `step` to `total`; other processes learn so from the file, and how the run is called."""
        self.total = total
        self.last_line = time.monotonic()
        progress = {"label": self.label, "steps": total, "start": step, "started": time.time()}
        with writing(self.file) as path:
            write_atomically(path, json.dumps(progress) + "\n")
        if sys.stderr.isatty():
            self.bar = tqdm(
                desc=self.label, initial=step, total=total, unit="step", bar_format="{l_bar}{bar}| {n}/{total}{postfix}"
            )

    def describe(self, row: dict[str, float]) -> None:
        self.text = (
            f"{row['images_per_second']:.0f} images/s, loss {row['loss']:.4f}, spread {row['spread']:.2f}, "
            f"penalty {row['penalty']:.3g} ({row['penalty_share']:.1%} of the step)"
        )
        if self.bar is not None:
            self.bar.set_postfix_str(self.text, refresh=False)

    def advance(self, step: int) -> None:
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
        elif time.monotonic() - self.last_line > LINE_SECONDS or step == self.total:
            self.last_line = time.monotonic()
            print(f"{self.label}: step {step}/{self.total}, {self.text}", flush=True)

    def print(self, text: str) -> None:
        """A line of its own, above the bar."""
        tqdm.write(f"{self.label}: {text}")
        sys.stdout.flush()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
