"""Single convolutions: every shape of ResNet-18 and ResNet-50, and MobileNetV2's depthwise ones, beside PyTorch.

Single core, float32, through the public functions: the forward without gradients, the gradient of the input, that of
the weight, and both in one backward pass. distgrad's tensors are in the memory order in which its networks keep them
(height, width, batch, channels), PyTorch's in channels_last and in plain order, and for the forward also frozen and
optimized by torch.jit, with distgrad.compile beside it. The fastest of each side counts. Results are compared before
they are timed.

    python tests/benchmarks/convolutions.py                       every case
    python tests/benchmarks/convolutions.py --only 'resnet18 3x3'  the cases whose names contain that
    python tests/benchmarks/convolutions.py --roofline            with the time of the GEMMs alone at the core's peak
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
import numpy as np
import roofline
from contest import NOT_APPLICABLE
from harness import Case, Unavailable
from report import Report

FORWARD, INPUT, WEIGHT, BOTH = "forward", "grad input", "grad weight", "backward"
DIRECTIONS = (FORWARD, INPUT, WEIGHT, BOTH)
BATCHES = {224: 16, 64: 64}  # images of these sizes in one call
TOLERANCE = 2e-5  # Winograd F(5x5) has an error of 3e-6 in one convolution; sums over all pixels add to it


@dataclass(frozen=True)
class Shape:
    """One convolution of a network, with the side of its input in pixels."""

    inside: int
    outside: int
    kernel: int
    stride: int
    side: int
    groups: int = 1

    @property
    def padding(self) -> int:
        """What keeps the size at stride 1."""
        return self.kernel // 2

    @property
    def out(self) -> int:
        """Side of the output."""
        return (self.side + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class Setting:
    """A case: one direction of one convolution."""

    network: str
    shape: Shape
    batch: int
    size: int
    direction: str
    goal: float | None
    tolerance: float = TOLERANCE

    @property
    def name(self) -> str:
        """What the case is called."""
        of = self.shape
        kind = f"{of.kernel}x{of.kernel}{f' s{of.stride}' if of.stride > 1 else ''}"
        channels = f"{of.inside}->{of.outside}" if of.groups == 1 else f"{of.inside} depthwise"
        return f"{self.network} {kind} {channels} {of.side}px n{self.batch} {self.direction}"


def resnet18(size: int) -> list[Shape]:
    """The convolutions of ResNet-18 for photos of ``size`` pixels, each shape once."""
    found = [Shape(3, 64, 7, 2, size)]
    side, inside = _halved(_halved(size)), 64
    for planes in (64, 128, 256, 512):
        stride = 1 if planes == 64 else 2
        if stride == 2:
            found += [Shape(inside, planes, 3, 2, side), Shape(inside, planes, 1, 2, side)]
        side, inside = side if stride == 1 else _halved(side), planes
        found.append(Shape(planes, planes, 3, 1, side))
    return found


def resnet50(size: int) -> list[Shape]:
    """Those of ResNet-50 that ResNet-18 does not have."""
    found = []
    side, inside = _halved(_halved(size)), 64
    for planes in (64, 128, 256, 512):
        stride = 1 if planes == 64 else 2
        after = side if stride == 1 else _halved(side)
        found += [Shape(inside, planes, 1, 1, side), Shape(planes, planes, 3, stride, side)]
        found += [Shape(planes, 4 * planes, 1, 1, after), Shape(inside, 4 * planes, 1, stride, side)]
        found += [Shape(4 * planes, planes, 1, 1, after), Shape(planes, planes, 3, 1, after)]
        side, inside = after, 4 * planes
    return [shape for shape in dict.fromkeys(found) if shape not in resnet18(size)]


def mobilenet(size: int) -> list[Shape]:
    """The depthwise convolutions of MobileNetV2 at width 1."""
    found, side, inside = [], _halved(size), 32
    plan = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for expand, outside, depth, first in plan:
        for number in range(depth):
            hidden, stride = inside * expand, 1 if number else first
            found.append(Shape(hidden, hidden, 3, stride, side, hidden))
            side, inside = side if stride == 1 else _halved(side), outside
    return list(dict.fromkeys(found))


def _halved(side: int) -> int:
    return (side + 1) // 2


NETWORKS = {"resnet18": resnet18, "resnet50": resnet50, "mobilenet": mobilenet}


def goal(network: str, shape: Shape, direction: str) -> float | None:
    """What was promised: every shape of ResNet-18, but for the gradient of the photos, which no training asks for."""
    photos = shape.inside == 3 and direction in (INPUT, BOTH)
    return 1.0 if network == "resnet18" and not photos else None


SETTINGS = [
    Setting(network, shape, batch, size, direction, goal(network, shape, direction))
    for size, batch in BATCHES.items()
    for network, shapes in NETWORKS.items()
    for shape in shapes(size)
    for direction in DIRECTIONS
]


# ------------------------------------------------------------------------------------------------- what is in a process


class Convolution:
    """One case made ready in one library and variant."""

    def __init__(self, subject: str, setting: Setting) -> None:
        self.library = library = contest.library_of(subject)
        self.forward = setting.direction == FORWARD
        of, frozen = setting.shape, subject in ("distgrad compiled", "torch jit")
        if frozen and not self.forward:
            raise Unavailable(f"{NOT_APPLICABLE}: for forward only")
        random = np.random.default_rng(0)
        arrays = [
            random.standard_normal(shape, np.float32)
            for shape in (
                (setting.batch, of.inside, of.side, of.side),
                (of.outside, of.inside // of.groups, of.kernel, of.kernel),
                (setting.batch, of.outside, of.out, of.out),
            )
        ]
        if library.__name__ == "distgrad":
            for index in (0, 2):  # (N, C, H, W) whose memory is (H, W, N, C)
                arrays[index] = np.ascontiguousarray(arrays[index].transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1)
        x, weight, grad = (library.from_numpy(array) for array in arrays)
        if subject in ("torch channels_last", "torch jit"):
            x, weight, grad = (value.contiguous(memory_format=library.channels_last) for value in (x, weight, grad))
        self.x, self.weight, self.grad = x, weight, grad
        self.options = {"stride": of.stride, "padding": of.padding, "groups": of.groups}
        self.layer = self._frozen(subject, of) if frozen else None
        if not self.forward:
            self.wanted = [
                value.requires_grad_()
                for value, direction in ((x, INPUT), (weight, WEIGHT))
                if setting.direction in (direction, BOTH)
            ]
            self.output = library.nn.functional.conv2d(x, weight, **self.options)

    def _frozen(self, subject: str, of: Shape) -> Any:
        library = self.library
        layer = library.nn.Conv2d(of.inside, of.outside, of.kernel, bias=False, **self.options)
        layer.eval().requires_grad_(False)
        with library.no_grad():
            layer.weight.copy_(self.weight)
            if subject == "distgrad compiled":
                if not hasattr(library, "compile"):
                    raise Unavailable("distgrad has no compile")
                return library.compile(layer)
            layer = layer.to(memory_format=library.channels_last)
            layer = library.jit.optimize_for_inference(library.jit.freeze(library.jit.trace(layer, self.x)))
            for _ in range(3):
                layer(self.x)  # it optimizes in its first runs
        return layer

    def run(self) -> Any:
        """The convolution, or the gradients that are asked for."""
        if not self.forward:
            return self.library.autograd.grad(self.output, self.wanted, self.grad, retain_graph=True)
        with self.library.no_grad():
            if self.layer is not None:
                return self.layer(self.x)
            return self.library.nn.functional.conv2d(self.x, self.weight, **self.options)

    def values(self) -> dict[str, np.ndarray]:
        """What ``run`` gives."""
        found = self.run()
        return {str(index): value.detach().numpy() for index, value in enumerate([found] if self.forward else found)}


SUBJECTS = ("distgrad eager", "distgrad compiled", "torch channels_last", "torch plain order", "torch jit")


def subjects(subject: str) -> dict[str, Case]:
    """The cases of one library and variant."""
    return contest.subjects(subject, SETTINGS, Convolution)


# ----------------------------------------------------------------------------------------------------------- comparison


def chosen(arguments: Any) -> list[Setting]:
    """The settings that the command line asks for."""
    found = [setting for setting in SETTINGS if arguments.only in setting.name and setting.size in arguments.sizes]
    if not arguments.quick:
        return found
    found = [setting for setting in found if setting.size == 64]
    return [
        setting for setting in found if setting.shape == next(s.shape for s in found if s.network == setting.network)
    ]


def compare(arguments: Any) -> int:
    """Measures, prints and writes; 1 where results differed."""
    report = Report("convolutions", "Convolutions: how many times as fast as PyTorch's best on one core")
    remark = roofline_remark if arguments.roofline else lambda setting: ""
    contest.compare(Path(__file__).resolve(), chosen(arguments), "torch plain order", report, arguments, remark)
    summary = summarize(report)
    return report.finish(arguments.output, clock=arguments.clock, summary=summary)


def roofline_remark(setting: Setting) -> str:
    """The time that the GEMMs of distgrad's plan alone would take at the core's peak."""
    of, pair = setting.shape, lambda value: (value, value)
    inside, outside = (of.inside, of.side, of.side), (of.outside, of.out, of.out)
    layer = roofline.Layer(inside, outside, pair(of.kernel), pair(of.stride), pair(of.padding), of.groups)
    directions = 2 if setting.direction == BOTH else 1
    return f"; GEMMs alone {1e3 * directions * layer.multiplications(setting.batch)[1] / roofline.peak():.4g}"


def summarize(report: Report) -> dict[str, dict[str, float]]:
    """Geometric mean and least of each network's directions; printed."""
    found = {}
    print()
    for network in NETWORKS:
        of_network = [row for row in report.rows if row.case.startswith(network)]
        for label, rows in [
            *((direction, [row for row in of_network if row.case.endswith(direction)]) for direction in DIRECTIONS),
            ("all with a goal", [row for row in of_network if row.goal is not None]),
            ("all", of_network),
        ]:
            if not rows:
                continue
            worst = min(rows, key=lambda row: row.ratio.median)
            mean = report.geometric_mean(rows)
            found[f"{network} {label}"] = {"geometric mean": mean, "least": worst.ratio.median, "cases": len(rows)}
            goal = ""
            if label == "all with a goal":
                goal = f"; goal 1.5 {'reached' if mean >= 1.5 else 'MISSED'}"
            print(
                f"{network} {label}: geometric mean {mean:.2f} of {len(rows)} shapes{goal}, least "
                f"{worst.ratio.median:.2f} ({worst.case})"
            )
    return found


def main() -> int:
    """Reads the command line."""
    parser = contest.parser(__doc__, SUBJECTS, rounds=5, seconds=0.03)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(BATCHES), choices=list(BATCHES), help="of photos")
    parser.add_argument("--roofline", action="store_true", help="with the time of distgrad's GEMMs alone")
    return compare(contest.parse(parser))


if __name__ == "__main__":
    sys.exit(main())
