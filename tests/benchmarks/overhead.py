"""What the engine costs beside the arithmetic: small operations in distgrad, PyTorch, HIPS autograd, MyGrad, tinygrad.

Microseconds an operation, of chains of 100 (and a few other programs) in which the arithmetic is so small that mostly
the library's own work is seen. Every library has a process of its own, with one thread, on the same core; they take
turns. Before anything is timed, values and gradients are compared. The times are medians over the rounds, and the
ratios are those within a round: distgrad's time over the other's, so below 1 distgrad is faster.

    python tests/benchmarks/overhead.py                   all cases against all libraries that are installed
    python tests/benchmarks/overhead.py --only chain-16   the cases whose names contain that
    python tests/benchmarks/overhead.py --profile         where distgrad's microseconds go
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import harness
from harness import Unavailable
from programs import MODES, subjects  # noqa: F401 - a worker asks this module for subjects

LIBRARIES = ("distgrad", "torch", "autograd", "mygrad", "tinygrad", "numpy")
NUMPY_ENGINES = ("autograd", "mygrad")
TITLES = {"autograd": "HIPS", "mygrad": "MyGrad", "numpy": "NumPy"}
PATIENCE = 60  # seconds for a case's first run, in which tinygrad compiles


def compare(arguments: Any) -> int:
    """Measures, prints and writes; 1 where libraries computed something else."""
    harness.heading("Overhead: microseconds an operation, and distgrad's over the other's [quartiles]")
    chosen = ["distgrad", *(name for name in arguments.libraries if name != "distgrad")]
    workers, unavailable = harness.start(Path(__file__).resolve(), chosen)
    for library, reason in unavailable.items():
        print(f"skipped: {TITLES.get(library, library)}: {reason}")
    if "distgrad" not in workers:
        return 1
    results, wrong = [], []
    print(f"{'':30} {'distgrad':>8}  " + "".join(f"{TITLES.get(name, name):>29}" for name in list(workers)[1:]))
    try:
        for case in list(workers["distgrad"].cases):
            if arguments.only not in case:
                continue
            if difference := disagreements(workers, case):
                wrong += difference
                continue
            result = harness.compare(
                workers,
                case,
                rounds=arguments.rounds,
                seconds=arguments.seconds,
                clock=arguments.clock,
                patience=PATIENCE,
            )
            results.append(result)
            print(line(result, list(workers)[1:]), flush=True)
    finally:
        for worker in workers.values():
            worker.stop()
    summary = summarize(results)
    print()
    for sentence, _ in summary.values():
        print(sentence)
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    harness.write_json(
        arguments.json,
        {
            "benchmark": "overhead",
            "clock": arguments.clock,
            "unavailable": unavailable,
            "wrong": wrong,
            "cases": results,
            "summary": {name: value for name, (_, value) in summary.items()},
        },
    )
    return 1 if wrong else 0


def disagreements(workers: dict[str, harness.Worker], case: str) -> list[str]:
    """Which libraries compute something else than distgrad. One that cannot at all loses the case."""
    reference, found = None, []
    for library, worker in workers.items():
        if case not in worker.cases:
            continue
        try:
            values = worker.ask("values", case, limit=PATIENCE)
        except Unavailable as error:
            if library == "distgrad":
                return [f"{case}: distgrad: {error}"]
            print(f"skipped: {case}: {TITLES.get(library, library)}: {error}")
            del worker.cases[case]
            worker.revive()
            continue
        if library == "distgrad":
            reference = values
        elif reference is not None and (difference := harness.disagreement(reference, values, 2e-4, 2e-5)):
            found.append(f"{case}: distgrad and {TITLES.get(library, library)}: {difference}")
    return found


def line(result: harness.Result, others: list[str]) -> str:
    """One line of the table."""
    cells = []
    for library in others:
        if library in result.ratio:
            micro, ratio = result.seconds[library].median * 1e6, result.ratio[library]
            cells.append(f"{micro:9.2f}  {ratio.median:5.2f} [{ratio.low:.2f}-{ratio.high:.2f}]")
        else:
            cells.append("-")
    ours = result.seconds["distgrad"].median * 1e6
    return f"{result.case:30} {ours:8.2f}  " + "".join(f"{cell:>29}" for cell in cells)


def summarize(results: list[harness.Result]) -> dict[str, tuple[str, Any]]:
    """The figures that count, as sentences and as values: the worst of each kind of case."""
    found: dict[str, tuple[str, Any]] = {}
    for mode in (*MODES, ""):
        chosen = [result for result in results if result.case.endswith(mode)]
        where = f"{mode} cases" if mode else "all cases"
        name = mode or "all"
        torch = {result.case: result.ratio["torch"].median for result in chosen if "torch" in result.ratio}
        if torch:
            case = max(torch, key=lambda name: torch[name])
            sentence = f"{where}: at worst {torch[case]:.2f} times PyTorch's time ({case})"
            found[f"{name}: worst over torch"] = (sentence, torch[case])
        for library in NUMPY_ENGINES:
            factors = {result.case: 1 / result.ratio[library].median for result in chosen if library in result.ratio}
            if factors:
                case = min(factors, key=lambda name: factors[name])
                sentence = f"{where}: {TITLES[library]} takes {factors[case]:.2f} times our time or more ({case})"
                found[f"{name}: least factor of {library}"] = (sentence, factors[case])
    busy = min((result.busy for result in results), default=1.0)
    if busy < 0.95:
        found["busy"] = (
            f"Other programs took up to {1 - busy:.0%} of the core: close them for steadier figures.",
            busy,
        )
    return found


def main() -> int:
    """Reads the command line."""
    parser = harness.parser(__doc__)
    parser.add_argument("--profile", action="store_true", help="where the microseconds of distgrad go")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose names contain it")
    parser.add_argument("--libraries", nargs="*", default=LIBRARIES, choices=LIBRARIES, help="against which")
    parser.add_argument("--rounds", type=int, default=15, help="how often each is measured (default: 15)")
    parser.add_argument("--seconds", type=float, default=0.02, help="length of one measurement (default: 0.02)")
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu", help="processor time or time on the clock")
    arguments = parser.parse_args()
    if arguments.profile:
        from breakdown import profile

        return profile(arguments.json, arguments.only, arguments.rounds, arguments.seconds)
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
