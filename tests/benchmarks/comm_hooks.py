"""Communication hooks on one bucket between two hosts: how fast, how many bytes, how exact.

Two network namespaces (``two_hosts.py``) stand for the hosts. The ranks sum a bucket of 27 MiB with each hook in turn,
with a barrier before each; a measurement is the longest time of any rank. The figure is how many times as fast a hook
is as ``all_reduce``, as the median of the rounds' ratios. Printed beside it are what a rank sends, and the error of the
first sum, by the norm of the hook's docstring, with the bound that the hook states.

    python tests/benchmarks/comm_hooks.py               needs root
    python tests/benchmarks/comm_hooks.py --rates 1 --each 2 --hooks hierarchical fp16
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Spread, Unavailable
from report import OUTPUT, Report, Row
from two_hosts import TwoHosts, search_path
from whole_job import MPI

NAIVE = "all_reduce"
HOOKS = [NAIVE, "reduce_scatter", "hierarchical", "fp16", "bfloat16", "top_k", "power_sgd"]
OPTIONS: dict[str, dict[str, Any]] = {"power_sgd": {"matrix_approximation_rank": 4, "start_powerSGD_iter": 0}}
LAYERS = 3  # (512, 512, 3, 3) each
LIMIT = 600  # seconds of one mpirun


# ----------------------------------------------------------------------------------------------------- what a rank does


def measure(names: list[str], rounds: int, layers: int) -> dict[str, Any]:
    """For each hook the seconds of each round on the slowest rank, bytes, bound and error."""
    from distgrad import distributed
    from distgrad.distributed.bucket import GradBucket
    from distgrad.distributed.comm_hooks import make
    from distgrad.nn.parameter import Parameter

    ranks = distributed.init("mpi")
    shape = (512, 512, 3, 3)
    parameters = [Parameter(np.zeros(shape, np.float32)) for _ in range(layers)]
    bucket = GradBucket(parameters, range(layers), [f"layer{n}.weight" for n in range(layers)], 0, True)
    given = np.random.default_rng(ranks.rank).standard_normal(bucket.buffer().size).astype(np.float32)
    exact = given.astype(np.float64)
    ranks.all_reduce(exact)
    made = {name: make(name, ranks.duplicate(), **OPTIONS.get(name, {})) for name in names}
    found: dict[str, Any] = {}
    for name, (state, hook) in made.items():
        bucket.buffer()[...] = given
        report = hook(state, bucket)
        order = 2 if name in ("top_k", "power_sgd") else np.inf
        size = np.array([np.linalg.norm(given.astype(np.float64), order)])
        ranks.all_reduce(size)
        error = float(np.linalg.norm(bucket.buffer() - exact, order) / size[0])
        found[name] = {"seconds": [], "bytes": report.bytes_sent, "bound": report.error_bound, "error": error}
    for _ in range(rounds):
        for name, (state, hook) in made.items():
            bucket.buffer()[...] = given
            ranks.barrier()
            begin = time.perf_counter()
            hook(state, bucket)
            seconds = np.array([time.perf_counter() - begin])
            ranks.all_reduce(seconds, "max")
            found[name]["seconds"].append(float(seconds[0]))
    return found


# ----------------------------------------------------------------------------------------------------------- the report


def compare(arguments: argparse.Namespace) -> int:
    """Runs both hosts at each rate, prints and writes."""
    report = Report("comm_hooks", "Communication hooks: times as fast as all_reduce, between two hosts")
    every = {}
    try:
        with TwoHosts() as hosts, tempfile.TemporaryDirectory() as folder:
            for rate in arguments.rates:
                hosts.set_rate(rate)
                for each in arguments.each:
                    found = job(hosts, each, arguments, Path(folder))
                    every[f"{rate:g} Gbit/s, {each} a host"] = found
                    add_rows(report, f"{rate:g} Gbit/s, {2 * each} ranks", found)
    except Unavailable as reason:
        report.note(f"skipped: {reason}")
    return report.finish(arguments.output, measured=every)


def job(hosts: TwoHosts, each: int, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What the ranks measure."""
    file = folder / "found.json"
    command = [sys.executable, __file__, "--as-rank", str(file), "--rounds", str(arguments.rounds)]
    command += ["--layers", str(arguments.layers), "--hooks", *dict.fromkeys([NAIVE, *arguments.hooks])]
    environment = MPI | harness.environment({"PATH": search_path()})
    done = subprocess.run(
        hosts.mpirun(command, {}, each), env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    if done.returncode:
        raise Unavailable(" | ".join(done.stderr.strip().splitlines()[-3:]))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def add_rows(report: Report, case: str, found: dict[str, Any]) -> None:
    """The figures of one rate and number of ranks."""
    for name, hook in found.items():
        ratios = [naive / own for naive, own in zip(found[NAIVE]["seconds"], hook["seconds"], strict=True)]
        milliseconds = 1000 * Spread.of(hook["seconds"]).median
        detail = f"{milliseconds:.0f} ms, {hook['bytes'] / 1e6:.2f} MB a rank, error {hook['error']:.1e} of a bound of "
        report.add(Row(f"{case}, {name}", Spread.of(ratios), None, detail + f"{hook['bound']:.1e}", hook))
        if hook["error"] > hook["bound"]:
            report.fail(f"{case}, {name}: the error {hook['error']:.2e} is beyond the bound {hook['bound']:.2e}")


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"for the files ({OUTPUT})")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0], help="Gbit/s (default: 1 10)")
    parser.add_argument("--each", type=int, nargs="+", default=[1, 2], help="ranks on each host (default: 1 2)")
    parser.add_argument("--hooks", nargs="+", default=HOOKS, help=f"default: {' '.join(HOOKS)}")
    parser.add_argument("--rounds", type=int, default=15, help="of each hook (default: 15)")
    parser.add_argument("--layers", type=int, default=LAYERS, help=f"of 9 MiB in the bucket (default: {LAYERS})")
    parser.add_argument("--quick", action="store_true", help="one round: whether it works, not how fast")
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rates, arguments.each, arguments.rounds, arguments.layers = [10.0], [1], 1, 1
    if arguments.as_rank is None:
        return compare(arguments)
    found = measure(arguments.hooks, arguments.rounds, arguments.layers)
    from distgrad import distributed

    if distributed.rank() == 0:
        arguments.as_rank.write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
