"""Steps run depth first: a part of the batch goes through several of them while it is in cache, then the next part.

Only where nothing is recorded: what a backward pass keeps has to leave the cache anyway. A part is as large as its
GEMMs need: with fewer rows than that, a product spends its time on reading the weight.
"""

from __future__ import annotations

import math

from ..kernels.convolution_choice import choose
from .convolution_step import ConvolutionChain, ConvolutionStep, shape_of
from .graph import Operation, Value
from .pooling_step import MaxPoolStep
from .steps import Run, Step

# Rows of a product, in output pixels, that make it worth reading the weight; images of a part at least.
_PIXELS = 6144
_IMAGES = 8

_Images = ConvolutionStep | MaxPoolStep


class Segment(Step):
    """Neighbouring steps over ``size`` images at a time.

    Args:
        steps: convolutions and poolings of one batch size, none recorded.
        size: images of a part; not more than there are.
        leaving: the values among theirs that are read behind the segment.
        algorithm: of convolutions.
    """

    def __init__(self, steps: list[_Images], size: int, leaving: set[Value], algorithm: str) -> None:
        self.size = size
        made = {value for step in steps for value in step.outputs}
        inner: dict[Value, Value] = {}
        self.parts = [_resized(step, size, inner, algorithm) for step in steps]
        for step, part in zip(steps, self.parts, strict=True):
            if isinstance(step, MaxPoolStep) and isinstance(part, MaxPoolStep) and step.shift is not None:
                before = next(p for p in self.parts if p.outputs[0] is part.input)
                assert isinstance(before, ConvolutionStep)
                before.postpones, part.shift = True, before.offset
        self.inputs = tuple(dict.fromkeys(v for step in steps for v in step.inputs if v not in made))
        self.outputs = tuple(v for step in steps for v in step.outputs if v in leaving)
        self._inner = inner
        self._places: dict[Value, int] = {}
        for number, part in enumerate(self.parts):
            part.number, part.places = number, self._places
            for value in (*part.inputs, *part.outputs):
                self._places.setdefault(value, len(self._places))
        self._drops: list[list[int]] = [[] for _ in self.parts]
        seen: set[int] = set()
        for part in reversed(self.parts):
            for value in (*part.inputs, *part.outputs):
                if self._places[value] not in seen:
                    seen.add(self._places[value])
                    self._drops[part.number].append(self._places[value])

    def describe(self) -> str:
        """The size of a part, and its steps."""
        return f"{self.size} images at a time:" + "".join(f"\n       {part.describe()}" for part in self.parts)

    def prepare(self) -> None:
        """That of the steps."""
        for part in self.parts:
            part.prepare()

    def forward(self, run: Run) -> None:
        """One part after the other; the last one ends with the batch, and may begin with what has been done."""
        batch = self.outputs[0].shape[0]
        wholes = {value: run.destination(self.places[value], value) for value in self.outputs}
        inside = Run(len(self._places), len(self.parts), run.pool, run.space)
        for start in (*range(0, batch - self.size, self.size), batch - self.size):
            images = slice(start, start + self.size)
            for value in self.inputs:
                array = run.values[self.places[value]]
                inner = self._inner.get(value, value)
                if inner in self._places:
                    inside.values[self._places[inner]] = array if value.tensor is not None else array[images]
            for value, whole in wholes.items():
                inside.set_destination(self._places[self._inner[value]], whole[:, :, images])
            for part, drops in zip(self.parts, self._drops, strict=True):
                part.forward(inside)
                for place in drops:
                    inside.values[place] = None
        for value, whole in wholes.items():
            run.values[self.places[value]] = whole.transpose(2, 3, 0, 1)

    def backward(self, run: Run) -> None:
        """Nothing: nothing is recorded."""


def _resized(step: _Images, size: int, inner: dict[Value, Value], algorithm: str) -> _Images:
    def value(x: object) -> object:
        if not isinstance(x, Value) or x.tensor is not None:
            return x
        if x not in inner:
            inner[x] = Value((size, *x.shape[1:]), x.dtype)
        return inner[x]

    def operation(o: Operation | None) -> Operation | None:
        if o is None:
            return None
        operands = tuple(value(x) for x in o.operands)
        outputs = tuple(v for v in map(value, o.outputs) if isinstance(v, Value))
        return Operation(o.primitive, operands, o.keywords, outputs)

    if isinstance(step, MaxPoolStep):
        pool = operation(step.operation)
        assert pool is not None
        return MaxPoolStep(pool, None, step.kind)
    chain = step.chain
    convolution = operation(chain.convolution)
    residual = value(chain.residual)
    assert convolution is not None and (residual is None or isinstance(residual, Value))
    small = ConvolutionChain(
        convolution, operation(chain.norm), operation(chain.addition), residual, operation(chain.activation), chain.kind
    )
    return ConvolutionStep(small, choose(shape_of(convolution), algorithm, frozen=True))


def _part(step: Step) -> int | None:
    """How many images at a time a step is fastest with; None where that cannot be chosen."""
    if not isinstance(step, ConvolutionStep | MaxPoolStep) or step.recorded:
        return None
    n, _, h, w = step.outputs[0].shape
    pixels = h * w * (step.window.stride[0] ** 2 if isinstance(step, MaxPoolStep) else 1)
    size = max(_IMAGES, 1 << math.ceil(math.log2(_PIXELS / pixels)) if pixels < _PIXELS else 1)
    return size if size < n else None


def segmented(steps: list[Step], kept: set[Value], algorithm: str) -> list[Step]:
    """``steps`` with neighbours that want parts of the same size joined to segments.

    Args:
        steps: of a plan.
        kept: values that are read after the last step.
        algorithm: of convolutions.
    """
    out: list[Step] = []
    start = 0
    while start < len(steps):
        size = _part(steps[start])
        end = start + 1
        while size is not None and end < len(steps) and _part(steps[end]) == size:
            end += 1
        group = [step for step in steps[start:end] if isinstance(step, ConvolutionStep | MaxPoolStep)]
        if size is None:
            out += steps[start:end]
        else:
            later = kept | {value for step in steps[end:] for value in step.inputs}
            out.append(Segment(group, size, later, algorithm))
        start = end
    return out
