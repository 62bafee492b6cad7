"""How much communication hides behind backward: full training of ResNet-18 on two hosts joined by 1 and 10 Gbit/s.

Two network namespaces (``two_hosts.py``) stand for the hosts, with one rank and one core each. A step of distgrad
alone, data-parallel without overlap and with the channel that it chooses itself, and of PyTorch's
DistributedDataParallel over gloo, by the same script (``overlap_rank.py``), in turn. Two figures count at each rate:
the step beside PyTorch's, and the share that is hidden of what could be. That is found from what was measured: buckets
that are ready at those moments of backward and follow one another as fast as alone cannot be over earlier; and neither
can a step in which a rank's core does the computation and all that the messages cost it.

    python tests/benchmarks/overlap.py                          needs root
    python tests/benchmarks/overlap.py --rates 1 --batch 64 --ways thread patient poll auto
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from harness import Spread, Unavailable
from report import OUTPUT, Report, Row
from two_hosts import TwoHosts, search_path
from whole_job import MPI

SCRIPT = Path(__file__).resolve().parent / "overlap_rank.py"
ALONE, WITHOUT, WITH, TORCH = "alone", "none", "auto", "ddp"
HIDDEN, BESIDE = 0.9, 1.0  # goals
LIMIT = 600  # seconds of one job
PORT = 29511


def run(commands: list[list[str]], environments: list[dict[str, str]], folder: Path) -> None:
    """Runs commands at the same time, to their end.

    Raises:
        Unavailable: one of them failed or took too long.
    """
    processes = []
    files = [folder / f"errors-{number}" for number in range(len(commands))]
    for command, environment, file in zip(commands, environments, files, strict=True):
        with open(file, "w") as errors:
            processes.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment, cwd=folder)
            )
    deadline = time.monotonic() + LIMIT
    try:
        status = [process.wait(max(1.0, deadline - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        raise Unavailable(f"not finished in {LIMIT} s") from None
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(status):
        text = "".join(file.read_text() for file in files).strip().splitlines()
        raise Unavailable(f"ended with {status}: {' | '.join(text[-5:])}")


def job(hosts: TwoHosts, library: str, ways: list[str], arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What ``overlap_rank.py`` measures of ``library`` on the two hosts."""
    file = folder / f"{library}.json"
    command = [sys.executable, str(SCRIPT), library, str(file), "--ways", *ways]
    command += ["--batch", str(arguments.batch), "--size", str(arguments.size), "--steps", str(arguments.steps)]
    cores = sorted(os.sched_getaffinity(0))
    command += ["--core", *(str(cores[number % len(cores)]) for number in range(2))]
    environment = MPI | harness.environment({"PATH": search_path()})
    if library == "distgrad":
        command += [] if arguments.eager else ["--compiled"]
        run([hosts.mpirun(command, dict(arguments.mca))], [environment], folder)
    else:
        place = {"WORLD_SIZE": "2", "MASTER_ADDR": hosts.addresses[0], "MASTER_PORT": str(PORT)}
        environments = [
            environment | place | {"RANK": str(rank), "GLOO_SOCKET_IFNAME": hosts.interfaces[rank]} for rank in range(2)
        ]
        run([hosts.on(rank, command) for rank in range(2)], environments, folder)
    found: dict[str, Any] = json.loads(file.read_text())
    found["step"] = {way: statistics.median(seconds) for way, seconds in found["seconds"].items()}
    return found


def shortest(found: dict[str, Any]) -> float:
    """Seconds of the shortest step there could be.

    Args:
        found: by a job: phases and steps alone, when gradients are ready, each bucket's time alone and on the core.
    """
    forward, backward, update = (statistics.median(column) for column in zip(*found["phases"][ALONE], strict=True))
    over = 0.0
    for names, seconds in zip(found["buckets"], found["communication"], strict=True):
        ready = max(statistics.median(one[name] for one in found["ready"]) for name in names)
        over = max(over, ready) + seconds
    alone: float = found["step"][ALONE]
    # What a step alone takes besides its phases, such as waiting for the slower rank, is in no phase.
    rest = alone - (forward + backward + update)
    return max(forward + max(backward, over) + update + rest, alone + sum(found["processing"]))


def hidden_share(found: dict[str, Any], way: str) -> float:
    """Which share of the communication that could be hidden was hidden."""
    one_after_the_other = found["step"][ALONE] + sum(found["communication"])
    could = one_after_the_other - shortest(found)
    return float((one_after_the_other - found["step"][way]) / could)


def compare(arguments: argparse.Namespace) -> int:
    """Runs the jobs in turn, prints and writes."""
    network = "eager" if arguments.eager else "compiled"
    title = f"Overlap: ResNet-18 ({network}), {arguments.batch} images of {arguments.size}px a rank, two hosts"
    report = Report("overlap", title)
    rounds: dict[str, list[dict[str, Any]]] = {}
    try:
        with TwoHosts() as hosts, tempfile.TemporaryDirectory() as folder:
            for rate in arguments.rates:
                hosts.set_rate(rate)
                found = []
                for _ in range(arguments.rounds):
                    ours = job(hosts, "distgrad", [ALONE, WITHOUT, *arguments.ways], arguments, Path(folder))
                    theirs = job(hosts, "torch", [ALONE, TORCH], arguments, Path(folder))
                    found.append({"distgrad": ours, "torch": theirs})
                    print(describe(rate, ours, theirs), flush=True)
                rounds[f"{rate:g} Gbit/s"] = found
                add_rows(report, f"{rate:g} Gbit/s", found)
    except Unavailable as error:
        report.note(f"skipped: {error}")
    return report.finish(arguments.output, rounds=rounds)


def add_rows(report: Report, link: str, found: list[dict[str, Any]]) -> None:
    """The figures of one rate."""
    last = found[-1]["distgrad"]
    way = WITH if WITH in last["step"] else min((w for w in last["step"] if w != ALONE), key=last["step"].__getitem__)
    beside = [one["torch"]["step"][TORCH] / one["distgrad"]["step"][way] for one in found]
    middle = {
        library: {w: statistics.median(one[library]["step"][w] for one in found) for w in found[0][library]["step"]}
        for library in ("distgrad", "torch")
    }
    detail = f"ms: {table(middle['distgrad'])}; torch {table(middle['torch'])}; chosen: {last.get('auto', way)}"
    report.add(Row(f"{link}: step beside torch DDP", Spread.of(beside), BESIDE, detail))
    shares = [hidden_share(one["distgrad"], way) for one in found]
    could = statistics.median(
        one["distgrad"]["step"][ALONE] + sum(one["distgrad"]["communication"]) - shortest(one["distgrad"])
        for one in found
    )
    wire = statistics.median(sum(one["distgrad"]["communication"]) for one in found)
    detail = f"of {milliseconds(wire)} ms of communication {milliseconds(could)} could be hidden"
    report.add(Row(f"{link}: hidden of what could be", Spread.of(shares), HIDDEN, detail))
    gain = [one["distgrad"]["step"][WITHOUT] / one["distgrad"]["step"][way] for one in found]
    report.add(Row(f"{link}: step with beside without overlap", Spread.of(gain)))
    if "timeline" in last:
        report.note(f"{link}: {last['timeline']['text']}")


def describe(rate: float, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """A line about one round."""
    return (
        f"{rate:g} Gbit/s, ms: {table(ours['step'])}; at least {milliseconds(shortest(ours))}; buckets "
        f"of {sizes(ours)} alone {milliseconds(*ours['communication'])}, of a core "
        f"{milliseconds(*ours['processing'])}; torch {table(theirs['step'])}, buckets "
        f"{milliseconds(*theirs['communication'])}"
    )


def sizes(found: dict[str, Any]) -> str:
    """The buckets' sizes in words."""
    return ", ".join(f"{octets / (1 << 20):.1f}" for octets in found["bytes"]) + " MiB"


def table(steps: dict[str, float]) -> str:
    """Ways with their ms."""
    return ", ".join(f"{way} {milliseconds(seconds)}" for way, seconds in steps.items())


def milliseconds(*seconds: float) -> str:
    """One or several."""
    return " + ".join(f"{1000 * one:.0f}" for one in seconds)


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"for the files ({OUTPUT})")
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 10.0], help="Gbit/s (default: 1 10)")
    parser.add_argument("--batch", type=int, default=32, help="images of a rank (default: 32)")
    parser.add_argument("--size", type=int, default=64, help="their pixels a side (default: 64)")
    parser.add_argument("--rounds", type=int, default=5, help="jobs of each library and rate (default: 5)")
    parser.add_argument("--steps", type=int, default=4, help="of each way in a job (default: 4)")
    parser.add_argument("--ways", nargs="+", default=[WITH], help="of progress= besides none (default: auto)")
    parser.add_argument("--eager", action="store_true", help="without distgrad.compile")
    parser.add_argument("--mca", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="of Open MPI")
    parser.add_argument("--quick", action="store_true", help="one round of small images: whether it works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rates, arguments.rounds, arguments.steps, arguments.batch, arguments.size = [10.0], 1, 1, 2, 32
    return compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
