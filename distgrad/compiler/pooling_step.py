"""Max pooling as a step, with what may be done after it instead of before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..autograd.tensor import Array
from ..kernels import fused_norm, pixel_pooling
from ..kernels.fused_norm import Activation
from .graph import Operation, Value
from .steps import Run, Step, ordered


class MaxPoolStep(Step):
    """The maxima of windows, in HWNC order.

    Args:
        operation: a call of ``MaxPool2D``.
        shift: gives (C,) numbers to add to the maxima.
        kind: an activation of that. Addition and activation never fall, so that they may come after the maximum:
            there they cost a stride's square less.
    """

    def __init__(
        self,
        operation: Operation,
        shift: Callable[[], Array | None] | None = None,
        kind: Activation = None,
    ) -> None:
        keywords = operation.keywords
        self.operation = operation
        self.window = pixel_pooling.Window(
            *(tuple(keywords[name]) for name in ("kernel_size", "stride", "padding", "dilation"))
        )
        self.input: Value = operation.operands[0]
        self.inputs = (self.input,)
        self.outputs = operation.outputs
        self.recorded = operation.recorded
        self.shift = shift
        self.kind = kind

    def describe(self) -> str:
        """Sizes, and what is done besides."""
        what = f"max pool {list(self.input.shape)} -> {list(self.outputs[0].shape)}"
        return what + ", then shift and activation" * (self.kind is not None)

    def forward(self, run: Run) -> None:
        """Writes the maxima."""
        x = ordered(run, run.values[self.places[self.input]])
        output = self.outputs[0]
        out = run.destination(self.places[output], output)
        places = None
        if self.recorded:
            places = run.pool.empty(out.shape, pixel_pooling.place_dtype(self.window.taps()))
        pixel_pooling.max_pool(x, out, self.window, places, run.space)
        shift = None if self.shift is None else self.shift()
        if shift is not None or self.kind is not None:
            ones = np.ones(output.shape[1], output.dtype)
            fused_norm.normalize(out, ones, ones * 0 if shift is None else shift, out, activation=self.kind)
        run.values[self.places[output]] = out.transpose(2, 3, 0, 1)
        run.kept[self.number] = places

    def backward(self, run: Run) -> None:
        """Sends each gradient to the pixel that was the maximum."""
        taken = run.take_gradient(self.places[self.outputs[0]])
        if taken is None or not self.recorded:
            return
        n, c, h, w = self.input.shape
        grad_x = run.pool.empty((h, w, n, c), self.input.dtype)
        grad = ordered(run, taken[0])
        pixel_pooling.max_pool_backward(grad, run.kept[self.number], grad_x, self.window, run.space)
        run.add_gradient(self.places[self.input], grad_x.transpose(2, 3, 0, 1), owned=True)


def is_max_pool(operation: Operation) -> bool:
    """Whether a step can do it: floats of four dimensions, of which none is empty."""
    return (
        operation.name == "MaxPool2D"
        and len(operation.output.shape) == 4
        and operation.output.dtype.kind == "f"
        and operation.output.dtype.itemsize >= 4
        and isinstance(operation.operands[0], Value)
        and 0 not in operation.output.shape
    )
