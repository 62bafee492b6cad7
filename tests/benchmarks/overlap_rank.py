"""One rank of ``overlap.py``: a training step of ResNet-18, alone and data-parallel, in distgrad or PyTorch.

The same script for both: only how ranks find each other and which options DistributedDataParallel takes differ. Each
way of doing the step ("alone", or a way in which gradients travel) has a model of its own, and they take turns. Rank 0
writes what was measured to a file.

    mpirun -n 2 python overlap_rank.py distgrad FILE --ways alone none thread poll
    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python overlap_rank.py torch FILE --ways alone ddp
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import architectures
import numpy as np

ALONE, WITHOUT = "alone", "none"
NAP = 1e-3  # seconds between two looks at a message


class Distgrad:
    """Ranks over MPI."""

    def __init__(self, compiled: bool) -> None:
        import distgrad
        from distgrad import distributed

        self.library, self.compiled = distgrad, compiled
        distributed.init()
        self.communicator = distributed.communicator()
        self.rank = self.communicator.rank
        self.barrier = self.communicator.barrier

    def place(self, model: Any, images: Any) -> tuple[Any, Any]:
        """As a user would have them."""
        return self.library.compile(model) if self.compiled else model, images

    def parallel(self, model: Any, way: str) -> Any:
        """The model in DistributedDataParallel."""
        return self.library.distributed.DistributedDataParallel(model, self.communicator, progress=way)

    def buckets(self, parallel: Any) -> list[tuple[str, ...]]:
        """The names of the parameters of each bucket, in the order in which they travel."""
        return [bucket.names for bucket in parallel._reducer.buckets]

    def all_reduces(self) -> list[Callable[[np.ndarray], Any]]:
        """Ways of summing an array over the ranks: of a blocking and a non-blocking one either may be faster."""
        return [self.communicator.all_reduce, lambda array: self.communicator.start_all_reduce(array).wait()]

    def processing(self, array: np.ndarray) -> float:
        """Seconds of this rank's core that an all-reduce takes, waited for asleep."""
        begin = time.process_time()
        work = self.communicator.start_all_reduce(array)
        while not work.test():
            time.sleep(NAP)
        return time.process_time() - begin

    def timeline(self, step: Step, steps: int, file: Path) -> dict[str, Any]:
        """What distgrad itself says about a few steps."""
        from distgrad.observe import Timeline

        with Timeline(file, self.communicator) as timeline:
            for _ in range(steps):
                step.run()
                timeline.step()
        assert timeline.summary is not None
        return timeline.summary.as_dict() | {"text": str(timeline.summary)}

    def finish(self) -> None:
        """Nothing: MPI ends by itself."""


class Torch:
    """Ranks over gloo."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        self.library, self.dist = torch, dist
        dist.init_process_group("gloo")
        self.rank = dist.get_rank()
        self.barrier = dist.barrier

    def place(self, model: Any, images: Any) -> tuple[Any, Any]:
        """In the order of memory in which PyTorch's convolutions are fastest on a processor."""
        order = self.library.channels_last
        return model.to(memory_format=order), images.contiguous(memory_format=order)

    def parallel(self, model: Any, way: str) -> Any:
        """The model in DistributedDataParallel."""
        return self.library.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def buckets(self, parallel: Any) -> list[tuple[str, ...]]:
        """Not asked for: PyTorch does not say."""
        return []

    def all_reduces(self) -> list[Callable[[np.ndarray], Any]]:
        """Ways of summing an array over the ranks."""
        return [lambda array: self.dist.all_reduce(self.library.from_numpy(array))]

    def processing(self, array: np.ndarray) -> float:
        """Seconds of this rank's core that an all-reduce takes; gloo waits asleep."""
        begin = time.process_time()
        self.dist.all_reduce(self.library.from_numpy(array))
        return time.process_time() - begin

    def finish(self) -> None:
        """Leaves the group."""
        self.dist.destroy_process_group()


class Step:
    """A way of doing a training step, with a model of its own."""

    def __init__(self, ranks: Any, way: str, batch: int, size: int) -> None:
        library = ranks.library
        images, labels = architectures.inputs("resnet18", batch, size)
        model = architectures.build(library, "resnet18")
        # Ranks see different images, so that a sum over them is a sum over something.
        model, self.images = ranks.place(model, library.from_numpy(images * (1 + ranks.rank)))
        self.labels = library.from_numpy(labels)
        self.model = model if way == ALONE else ranks.parallel(model, way)
        self.optimizer = library.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.loss = library.nn.functional.cross_entropy
        self.moments: list[float] = []

    def run(self) -> None:
        """Forward, backward, update; ``moments`` are its begin, those of backward and its end."""
        begin = time.perf_counter()
        loss = self.loss(self.model(self.images), self.labels)
        self.optimizer.zero_grad()
        backward = time.perf_counter()
        loss.backward()
        over = time.perf_counter()
        self.optimizer.step()
        self.moments = [begin, backward, over, time.perf_counter()]

    def ready(self) -> dict[str, float]:
        """The seconds from the begin of backward at which each parameter's gradient is final, in one step."""
        moments: dict[str, float] = {}

        def hook(name: str) -> Callable[[Any], None]:
            return lambda parameter: moments.__setitem__(name, time.perf_counter())

        named = list(self.model.module.named_parameters())
        handles = [parameter.register_post_accumulate_grad_hook(hook(name)) for name, parameter in named]
        self.run()
        for handle in handles:
            handle.remove()
        return {name: moment - self.moments[1] for name, moment in moments.items()}


def measure(ranks: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each way's steps, and what a schedule of the communication needs to know."""
    steps = {way: Step(ranks, way, arguments.batch, arguments.size) for way in arguments.ways}
    taken: dict[str, list[float]] = {way: [] for way in steps}
    phases: dict[str, list[list[float]]] = {way: [] for way in steps}
    for number in range(arguments.rounds + 1):
        for way, step in steps.items():
            for again in range(2 if number == 0 else 1 + arguments.steps):
                ranks.barrier()
                begin = time.perf_counter()
                step.run()
                if way == ALONE:
                    ranks.barrier()  # the slower rank's time, as it is where gradients travel
                if number and again:
                    taken[way].append(time.perf_counter() - begin)
                    phases[way].append(np.diff(step.moments).tolist())
    found: dict[str, Any] = {"seconds": taken, "phases": phases}
    parallel = next((step for way, step in steps.items() if way != ALONE), None)
    if WITHOUT in steps:  # nothing is sent before backward is over, and gradients have their places
        found["ready"] = [steps[WITHOUT].ready() for _ in range(arguments.steps)]
    if parallel is not None:
        found |= communication(ranks, parallel)
    automatic = steps.get("auto")
    if automatic is not None:
        found["auto"] = str(automatic.model.progress)
        found["timeline"] = ranks.timeline(automatic, arguments.steps, arguments.file.with_suffix(".timeline.json"))
    return found


def communication(ranks: Any, parallel: Step) -> dict[str, Any]:
    """Seconds that the buckets' all-reduces take with nothing beside them."""
    sizes = {name: parameter.numel() for name, parameter in parallel.model.module.named_parameters()}
    names = ranks.buckets(parallel.model) or [tuple(sizes)]
    arrays = [np.ones(sum(sizes[name] for name in bucket), np.float32) for bucket in names]

    def seconds(array: np.ndarray, all_reduce: Callable[[np.ndarray], Any]) -> float:
        ranks.barrier()
        begin = time.perf_counter()
        all_reduce(array)
        return time.perf_counter() - begin

    found, processing = [], []
    for array in arrays:
        taken = [[seconds(array, way) for way in ranks.all_reduces()] for _ in range(4)]
        found.append(min(statistics.median(column) for column in zip(*taken[1:], strict=True)))
        processing.append(statistics.median(ranks.processing(array) for _ in range(3)))
    octets = [array.nbytes for array in arrays]
    return {"buckets": names, "bytes": octets, "communication": found, "processing": processing}


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=("distgrad", "torch"))
    parser.add_argument("file", type=Path, help="for rank 0's figures")
    parser.add_argument("--ways", nargs="+", default=[ALONE, "none"], help="alone, and names for progress=")
    parser.add_argument("--batch", type=int, default=32, help="images of a rank")
    parser.add_argument("--size", type=int, default=64, help="their pixels a side")
    parser.add_argument("--rounds", type=int, default=1, help="turns of each way")
    parser.add_argument("--steps", type=int, default=3, help="that count in a turn, after one that does not")
    parser.add_argument("--compiled", action="store_true", help="distgrad.compile the network")
    parser.add_argument("--core", type=int, nargs="*", help="the core of rank 0, 1, ...")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    ranks = Torch() if arguments.library == "torch" else Distgrad(arguments.compiled)
    if arguments.core:
        os.sched_setaffinity(0, {arguments.core[ranks.rank % len(arguments.core)]})
    found = measure(ranks, arguments)
    if ranks.rank == 0:
        arguments.file.write_text(json.dumps(found))
    ranks.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
