"""What the benchmarks of speed print and write: one line a case, a JSON file and a bar chart.

A figure is how many times as fast distgrad is as the peer: above 1 distgrad is ahead. Where smaller is better, as for
memory, it is distgrad's part of what the peer takes, and the goal is an upper one.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import harness
from harness import Spread

OUTPUT = Path("build/benchmarks")


@dataclass
class Row:
    """One case.

    Args:
        case: its name.
        ratio: the figure.
        goal: what the figure is to reach; None where nothing was promised.
        detail: the rest of the printed line.
        figures: what else goes into the JSON file.
    """

    case: str
    ratio: Spread
    goal: float | None = None
    detail: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


class Report:
    """The rows of one benchmark: printed as they come, written at the end.

    Args:
        name: of the benchmark and of its files.
        title: what the figures are.
        smaller: whether a smaller figure is the better one.
    """

    def __init__(self, name: str, title: str, smaller: bool = False) -> None:
        self.name, self.title, self.smaller = name, title, smaller
        self.rows: list[Row] = []
        self.wrong: list[str] = []
        self.notes: list[str] = []
        harness.heading(title)

    def add(self, row: Row) -> None:
        """Prints and keeps ``row``."""
        self.rows.append(row)
        verdict = ""
        if row.goal is not None:
            reached = row.ratio.median <= row.goal if self.smaller else row.ratio.median >= row.goal
            verdict = f"goal {row.goal:g} {'reached' if reached else 'MISSED'}"
        spread = f"{row.ratio.median:6.2f} [{row.ratio.low:.2f}-{row.ratio.high:.2f}]"
        print(f"{row.case:46} {spread:22} {verdict:18} {row.detail}".rstrip(), flush=True)

    def note(self, sentence: str) -> None:
        """Prints and keeps a sentence that belongs to the figures, such as why one is not there."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            print(sentence, flush=True)

    def fail(self, sentence: str) -> None:
        """A case whose results differ; it is not timed, and the benchmark ends with an error."""
        self.wrong.append(sentence)
        print(f"WRONG: {sentence}", flush=True)

    def geometric_mean(self, rows: list[Row] | None = None) -> float:
        """Of the figures of ``rows``, or of all."""
        chosen = self.rows if rows is None else rows
        return math.exp(sum(math.log(row.ratio.median) for row in chosen) / len(chosen)) if chosen else math.nan

    def finish(self, folder: Path, **content: Any) -> int:
        """Writes the files into ``folder``; what the process is to end with: 1 where results differed."""
        rows = [asdict(row) for row in self.rows]
        found = {"benchmark": self.name, "title": self.title, "wrong": self.wrong, "notes": self.notes, "rows": rows}
        harness.write_json(folder / f"{self.name}.json", found | content)
        print(f"\nwritten: {folder / self.name}.json", end="")
        if self.rows:
            print(draw(folder / f"{self.name}.png", self.title, self.rows), end="")
        print()
        return 1 if self.wrong else 0


def draw(path: Path, title: str, rows: list[Row]) -> str:
    """Draws one bar a row, with its quartiles, a line at 1 and a mark at each goal; says what came of it."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "; no chart, because matplotlib is not installed (it is in the extra 'bench')"
    figure, axes = pyplot.subplots(figsize=(9, 1.2 + 0.32 * len(rows)), layout="constrained")
    places = range(len(rows))
    medians = [row.ratio.median for row in rows]
    spread = [
        [row.ratio.median - row.ratio.low for row in rows],
        [row.ratio.high - row.ratio.median for row in rows],
    ]
    axes.barh(places, medians, xerr=spread, color="#4878a8", ecolor="#333333", height=0.7)
    axes.axvline(1.0, color="#333333", linewidth=1, label="the peer")
    goals = [(row.goal, place) for place, row in zip(places, rows, strict=True) if row.goal is not None]
    if goals:
        values, heights = zip(*goals, strict=True)
        axes.scatter(values, heights, marker="|", s=180, color="#c03020", linewidths=2, zorder=3, label="goal")
    for place, row in zip(places, rows, strict=True):
        axes.annotate(f" {row.ratio.median:.2f}", (row.ratio.high, place), va="center", ha="left", fontsize=8)
    axes.margins(x=0.1, y=1 / (len(rows) + 1))
    axes.set_yticks(places, [row.case for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return f" and {path.name}"
