"""ONNX Runtime in process: the best of all settings for this machine's cores, and what it does in each round."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import environments
from figure import Figure

PROGRAM = environments.HERE / "inprocess.py"

# The best of one short pass each are measured again, so that one lucky second does not decide.
FINALISTS = 3
FINAL_PASSES = 3


@dataclass(frozen=True)
class Setting:
    threads: int
    callers: int
    batch: int
    spin: bool

    def __str__(self) -> str:
        spin = ", spinning" if self.spin else ""
        return f"{self.callers} x {self.threads} thread{'s' if self.threads > 1 else ''}{spin}, batch {self.batch}"


@dataclass
class Sweep:
    """Rows a second of every setting: sessions that are called at the same time, threads of each, rows of a run."""

    model: Path
    row: Path
    batches: list[int]
    found: dict[Setting, Figure] = field(default_factory=dict)

    def settings(self) -> list[Setting]:
        counts = sorted({1, len(os.sched_getaffinity(0))})
        ways = [(threads, callers, spin) for threads in counts for callers in counts for spin in {False, threads > 1}]
        return [Setting(threads, callers, batch, spin) for threads, callers, spin in ways for batch in self.batches]

    def best(self) -> Setting:
        return max(self.found, key=lambda setting: (len(self.found[setting].values), self.found[setting].median()))

    def run(self, seconds: float, passes: int = FINAL_PASSES) -> Setting:
        for setting in self.settings():
            self.found[setting] = Figure([self.measure(setting, seconds)])
        ordered = sorted(self.found, key=lambda setting: -self.found[setting].median())
        for _ in range(passes - 1):
            for setting in ordered[:FINALISTS]:
                self.found[setting].add(self.measure(setting, seconds))
        return self.best()

    def measure(self, setting: Setting, seconds: float) -> float:
        words = [seconds, setting.threads, setting.callers, setting.batch, int(setting.spin)]
        return ask(self.model, self.row, *words)


def ask(model: Path, row: Path, *words: object):
    """What inprocess.py says."""
    command = [environments.python("engine"), PROGRAM, model, row, *map(str, words)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
