"""What the same bits at any number of ranks cost: a step with slices against a plain one, in turns.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python tests/benchmarks/reproducible.py
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 mpirun -n 2 python tests/benchmarks/reproducible.py

Prints the ratio of medians of wall time and, which other programs disturb less, of this rank's processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import distgrad
from distgrad import distributed, nn, optim
from distgrad.autograd import Tensor
from distgrad.distributed import DistributedDataParallel
from distgrad.distributed.tree_sum import block
from distgrad.models import resnet18


def full(pixels: int) -> tuple[nn.Module, Any, tuple[int, ...]]:
    """Every layer of a ResNet-18 is trained, by plans."""
    network = resnet18(num_classes=10)
    return network, distgrad.compile(network), (3, pixels, pixels)


def head(pixels: int) -> tuple[nn.Module, Any, tuple[int, ...]]:
    """What is left of a frozen ResNet-18 when its features are known: a linear layer."""
    layer = nn.Linear(512, 10)
    return layer, layer, (512,)


def stepper(
    make: Callable[[int], tuple[nn.Module, Any, tuple[int, ...]]], batch: int, pixels: int, virtual_ranks: int | None
) -> Callable[[], None]:
    """A function that takes one step."""
    ranks = distributed.communicator()
    distgrad.manual_seed(0)
    network, fast, shape = make(pixels)
    if virtual_ranks is None:
        model, parts = DistributedDataParallel(fast, ranks), ranks.world_size
        mine = range(ranks.rank, ranks.rank + 1)
    else:
        model = DistributedDataParallel(fast, ranks, reproducible=True, virtual_ranks=virtual_ranks)
        parts, mine = virtual_ranks, block(virtual_ranks, ranks.world_size, ranks.rank)
    generator = np.random.default_rng(0)
    images = generator.standard_normal((batch, *shape)).astype(np.float32)
    labels = generator.integers(0, 10, batch)
    slices = [(Tensor(images[part::parts].copy()), Tensor(labels[part::parts])) for part in mine]
    sgd = optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        sgd.zero_grad()
        for inputs, targets in slices:
            nn.functional.cross_entropy(model(inputs), targets).backward()
        sgd.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--virtual-ranks", type=int, nargs="+", default=[8, 4, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="+", default=["full", "head"])
    arguments = parser.parse_args()
    ranks = distributed.init()
    for make in (full, head):
        if make.__name__ not in arguments.models:
            continue
        repeats = 1 if make is full else 100
        kinds = [None, *(v for v in arguments.virtual_ranks if v >= ranks.world_size)]
        steps = [stepper(make, arguments.batch, arguments.pixels, kind) for kind in kinds]
        seconds = np.zeros((arguments.rounds + 2, len(kinds), 2))
        for row in seconds:
            for column, step in enumerate(steps):
                ranks.barrier()
                begin = time.perf_counter(), time.process_time()
                for _ in range(repeats):
                    step()
                row[column] = time.perf_counter() - begin[0], time.process_time() - begin[1]
        median = np.median(seconds[2:], axis=0) / repeats * 1e3
        if ranks.rank == 0:
            print(f"{make.__name__}, batch {arguments.batch}, {ranks.world_size} ranks: plain {median[0, 0]:.2f} ms")
            for kind, (wall, processor) in zip(kinds[1:], median[1:], strict=True):
                print(
                    f"  {kind} slices: {wall:.2f} ms, {wall / median[0, 0]:.3f} of plain; "
                    f"processor time {processor / median[0, 1]:.3f} of plain",
                    flush=True,
                )


if __name__ == "__main__":
    main()
