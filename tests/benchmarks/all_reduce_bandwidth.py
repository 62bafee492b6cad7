"""All-reduce through distgrad's communicator beside mpi4py's own, and beside copying the same bytes in memory.

One mpirun for each number of ranks, all on this host. For each size from 1 KiB to 256 MiB the ranks do in turn: MPI's
``Allreduce`` in place on a NumPy array, distgrad's ``all_reduce``, distgrad's through the channel that a reducer would
use, and a copy of the array, with a barrier before each. A measurement is the longest time of any rank. The figure is
how much of raw MPI's speed is left, as the median of the rounds' ratios; the goal is 90 % at every size.

    python tests/benchmarks/all_reduce_bandwidth.py             2, 3 and 4 ranks
    python tests/benchmarks/all_reduce_bandwidth.py --ranks 2 --largest 26
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Spread
from report import OUTPUT, Report, Row
from two_hosts import search_path
from whole_job import MPI

RAW, OURS, CHANNEL, COPY = "mpi4py", "all_reduce", "channel", "memcpy"
GOAL = 0.9
SMALLEST = 10  # 2**10 bytes
SECONDS = 0.02  # of one measurement
LIMIT = 1800  # seconds of one mpirun


# ----------------------------------------------------------------------------------------------------- what a rank does


def subjects(size: int, progress: str) -> dict[str, Callable[[], Any]]:
    """What is measured, on float32 arrays of ``size`` bytes."""
    from mpi4py import MPI

    from distgrad import distributed
    from distgrad.distributed.channel import CHANNELS

    communicator = distributed.communicator()
    of_channel = communicator.duplicate()
    world = MPI.COMM_WORLD.Dup()
    arrays = {name: np.zeros(size // 4, np.float32) for name in (RAW, OURS, CHANNEL, COPY)}
    target = np.zeros_like(arrays[COPY])
    channel = CHANNELS[progress]()

    def through_channel() -> None:
        channel.wait(channel.submit(channel.reduce(of_channel, arrays[CHANNEL], "benchmark")))

    return {
        RAW: lambda: world.Allreduce(MPI.IN_PLACE, arrays[RAW]),
        OURS: lambda: communicator.all_reduce(arrays[OURS]),
        CHANNEL: through_channel,
        COPY: lambda: np.copyto(target, arrays[COPY]),
    }


def measure(sizes: list[int], rounds: int, progress: str) -> dict[str, Any]:
    """For each size the seconds of each subject, round by round, on the slowest rank."""
    from distgrad import distributed

    communicator = distributed.init("mpi")
    found: dict[str, Any] = {}
    for size in sizes:
        able = subjects(size, progress)
        number = repeats(able[RAW], communicator)
        taken: dict[str, list[float]] = {name: [] for name in able}
        order = list(able)
        for _ in range(rounds):
            for name in order:
                run = able[name]
                run()  # brings its arrays into the caches
                communicator.barrier()
                begin = time.perf_counter()
                for _ in range(number):
                    run()
                seconds = np.array([(time.perf_counter() - begin) / number])
                communicator.all_reduce(seconds, "max")
                taken[name].append(float(seconds[0]))
            order = order[1:] + order[:1]
        found[str(size)] = taken
    return found


def repeats(run: Callable[[], Any], communicator: Any) -> int:
    """How many runs take about ``SECONDS``, the same number on every rank."""
    for _ in range(3):
        run()
    begin = time.perf_counter()
    run()
    number = np.array([max(1, round(SECONDS / max(time.perf_counter() - begin, 1e-7)))])
    communicator.all_reduce(number, "max")
    return min(int(number[0]), 2000)


# ----------------------------------------------------------------------------------------------------------- the report


def compare(arguments: argparse.Namespace) -> int:
    """Runs mpirun for each number of ranks, prints and writes."""
    report = Report("all_reduce_bandwidth", "All-reduce: the part of raw mpi4py's speed that distgrad reaches")
    mpirun = shutil.which("mpirun", path=search_path())
    if mpirun is None:
        report.note("skipped: there is no mpirun")
        return report.finish(arguments.output)
    every = {}
    for ranks in arguments.ranks:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "found.json")
            command = [mpirun, "-n", str(ranks), sys.executable, __file__, "--as-rank", str(file)]
            command += ["--rounds", str(arguments.rounds), "--largest", str(arguments.largest)]
            command += ["--progress", arguments.progress]
            environment = MPI | harness.environment({"PATH": search_path()})
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
            if done.returncode:
                report.note(f"skipped: {ranks} ranks: {' | '.join(done.stderr.strip().splitlines()[-3:])}")
                continue
            found = every[str(ranks)] = json.loads(file.read_text())
        for size, taken in found.items():
            add_rows(report, ranks, int(size), taken)
    rows = [row for row in report.rows if row.goal is not None]
    if rows:
        report.note(f"geometric mean of the blocking ones: {report.geometric_mean(rows):.2f} of raw mpi4py")
    return report.finish(arguments.output, seconds=every)


def add_rows(report: Report, ranks: int, size: int, taken: dict[str, list[float]]) -> None:
    """The figures of one size."""
    middle = {name: Spread.of(seconds) for name, seconds in taken.items()}
    speeds = ", ".join(f"{name} {size / seconds.median / 1e9:.3g}" for name, seconds in middle.items())
    case = f"{ranks} ranks, {in_words(size)}"
    for name, goal in ((OURS, GOAL), (CHANNEL, None)):
        ratios = [raw / ours for raw, ours in zip(taken[RAW], taken[name], strict=True)]
        detail = f"GB/s: {speeds}" if name == OURS else ""
        report.add(Row(f"{case}, {name}", Spread.of(ratios), goal, detail, {"seconds": middle}))


def in_words(size: int) -> str:
    """A power of two of bytes."""
    return f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"for the files ({OUTPUT})")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 3, 4], help="default: 2 3 4")
    parser.add_argument("--rounds", type=int, default=15, help="of each size (default: 15)")
    parser.add_argument("--largest", type=int, default=28, metavar="N", help="up to 2**N bytes (default: 28)")
    parser.add_argument("--progress", default="thread", help="the channel (default: thread)")
    parser.add_argument("--quick", action="store_true", help="a few small ones: whether it works, not how fast")
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.ranks, arguments.rounds, arguments.largest = [2], 1, 14
    if arguments.as_rank is None:
        return compare(arguments)
    found = measure([1 << n for n in range(SMALLEST, arguments.largest + 1, 2)], arguments.rounds, arguments.progress)
    from distgrad import distributed

    if distributed.rank() == 0:
        arguments.as_rank.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
