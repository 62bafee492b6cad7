"""What the core's peak allows: the time of a network's GEMMs alone, if each ran as fast as the best one.

Counts the multiplications of every convolution's plan (Winograd's plans have fewer than the definition) and of every
linear layer, in one direction for forward and three for training, and divides by the rate of a large GEMM, measured on
the same core. Transforms, normalization, activation and everything else come on top, so this is a lower bound.

    python tests/benchmarks/roofline.py                  every network of networks.py
    python tests/benchmarks/roofline.py --only resnet18  those whose names contain that
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import architectures
import harness
import numpy as np
from harness import Case

SIDE = 1536  # of the matrices whose product is timed


def subjects(library: str) -> dict[str, Case]:
    """The product of two large matrices in NumPy."""
    random = np.random.default_rng(0)
    left, right = (random.standard_normal((SIDE, SIDE), np.float32) for _ in range(2))
    out = np.empty_like(left)
    return {"gemm": Case(lambda: np.matmul(left, right, out=out))}


@lru_cache(maxsize=1)
def peak() -> float:
    """Multiplications a second, each with its addition, of NumPy's best GEMM on one core."""
    workers, _ = harness.start(Path(__file__).resolve(), ["numpy"])
    try:
        times = [workers["numpy"].time("gemm", 2).cpu for _ in range(5)]
    finally:
        workers["numpy"].stop()
    return SIDE**3 / min(times)


@dataclass(frozen=True)
class Layer:
    """A convolution or, without a kernel, a linear layer: what its multiplications depend on, for one sample."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]
    kernel: tuple[int, int] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1

    def multiplications(self, batch: int) -> tuple[int, int]:
        """Of the definition, and of the plan that distgrad chooses."""
        from distgrad.kernels.convolution_choice import choose
        from distgrad.kernels.convolution_plan import ConvolutionShape

        if self.kernel is None:
            count = batch * math.prod(self.inside) * self.outside[-1]
            return count, count
        k, channels = self.outside[0], self.inside[0]
        numbers = (*self.kernel, self.stride, self.padding, (1, 1), self.groups)
        shape = ConvolutionShape(batch, *self.inside, k, *numbers, np.dtype(np.float32))
        plan: Any = choose(shape, "auto")
        if not hasattr(plan, "rows"):
            return shape.multiplications, shape.multiplications
        down, across = (
            sum((points.stop - points.start) * tiles for points, tiles in tiling.presence(0, tiling.count))
            for tiling in (plan.rows, plan.columns)
        )
        return shape.multiplications, batch * channels * k * down * across


@lru_cache(maxsize=32)
def layers(network: str, size: int) -> tuple[Layer, ...]:
    """The convolutions and linear layers of a network of ``architectures`` for photos of ``size`` pixels, in order."""
    import distgrad

    model = architectures.ARCHITECTURES[network](distgrad).eval()
    found: list[Layer] = []

    def note(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        shapes = tuple(inputs[0].shape[1:]), tuple(output.shape[1:])
        if isinstance(module, distgrad.nn.Linear):
            found.append(Layer(*shapes))
        else:
            found.append(Layer(*shapes, module.kernel_size, module.stride, module.padding, module.groups))

    for module in model.modules():
        if isinstance(module, distgrad.nn.Conv2d | distgrad.nn.Linear):
            module.register_forward_hook(note)
    with distgrad.no_grad():
        model(distgrad.from_numpy(architectures.inputs(network, 1, size)[0]))
    return tuple(found)


def multiplications(network: str, batch: int, size: int, training: bool) -> tuple[int, int]:
    """Of the definition and of distgrad's plans, in all convolutions and linear layers of a network.

    Args:
        network: of ``architectures``.
        batch: samples.
        size: pixels a side.
        training: count the gradients too: that of the weights, and, but for the first layer, that of the input.
    """
    plain = planned = 0
    for index, layer in enumerate(layers(network, size)):
        directions = 1 if not training else 2 if index == 0 else 3
        counts = layer.multiplications(batch)
        plain, planned = plain + directions * counts[0], planned + directions * counts[1]
    return plain, planned


def bound(network: str, batch: int, size: int, training: bool) -> float:
    """Seconds of the GEMMs alone."""
    return multiplications(network, batch, size, training)[1] / peak()


def main() -> int:
    """Prints the bounds."""
    from networks import SETTINGS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only networks whose cases contain it")
    arguments = parser.parse_args()
    harness.heading("Roofline: milliseconds of the GEMMs alone at the core's peak")
    print(f"peak of one core: {2 * peak() / 1e9:.0f} GFLOP/s float32 (a product of {SIDE}x{SIDE} matrices)\n")
    for setting in SETTINGS:
        if arguments.only in setting.name:
            training = setting.mode == "training"
            plain, planned = multiplications(setting.network, setting.batch, setting.size, training)
            milliseconds = [1e3 * count / peak() for count in (planned, plain)]
            print(
                f"{setting.name:46} {milliseconds[0]:8.2f} ms by its plans, {milliseconds[1]:8.2f} ms by the "
                f"definition, {plain / planned:.2f} times as many multiplications"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
