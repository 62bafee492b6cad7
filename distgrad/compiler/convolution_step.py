"""A convolution and what follows it, as one step: BatchNorm, the addition of a residual, an activation.

Where statistics and scale are given and no gradient is asked of them, BatchNorm is folded into the weight and the rest
is done to each block of rows while it is in cache. In training, statistics are taken from such blocks, and
normalization, addition and activation are one pass over memory.

A normalized value is not kept for the backward pass: it is computed again from what was normalized, which has to be
kept anyway. That costs a pass over memory and saves a third of what a ResNet keeps. With a residual it is kept, since
the residual would have to be computed again first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd.tensor import Array
from ..kernels import fused_norm
from ..kernels.batch_norm import inverse_deviation
from ..kernels.convolution_plan import ConvolutionPlan, ConvolutionShape, Finish
from ..kernels.fused_norm import Activation
from ..kernels.kept_weights import kept
from .graph import Operation, Value
from .steps import Run, Step, ordered, pixels


@dataclass
class ConvolutionChain:
    """The operations of one step, in their order; None for those that are not there.

    Attributes:
        convolution: what begins it.
        norm: BatchNorm of its result, in training or by given statistics.
        addition: the addition of ``residual``.
        residual: what is added.
        activation: the last operation.
        kind: which activation that is.
    """

    convolution: Operation
    norm: Operation | None = None
    addition: Operation | None = None
    residual: Value | None = None
    activation: Operation | None = None
    kind: Activation = None

    @property
    def last(self) -> Operation:
        """The operation whose result is the step's."""
        return self.activation or self.addition or self.norm or self.convolution

    @property
    def recorded(self) -> bool:
        """Whether a gradient may come through it."""
        operations = (self.convolution, self.norm, self.addition, self.activation)
        return any(operation is not None and operation.recorded for operation in operations)

    @property
    def moves(self) -> bool:
        """Whether it normalizes with the statistics of the batch."""
        return self.norm is not None and self.norm.name == "NativeBatchNorm"


def _tensor(value: Any) -> Array | None:
    return None if value is None else value.tensor._data


class ConvolutionStep(Step):
    """See the module. The weight and all that BatchNorm takes are tensors from outside.

    Args:
        chain: the operations.
        plan: the convolution's.
    """

    def __init__(self, chain: ConvolutionChain, plan: ConvolutionPlan) -> None:
        self.chain = chain
        self.plan = plan
        convolution, norm = chain.convolution, chain.norm
        self.input, self.weight, self.bias = convolution.operands
        _, self.scale, self.shift = norm.operands if norm is not None else (None, None, None)
        self.residual = chain.residual
        present = (self.input, self.weight, self.bias, self.scale, self.shift, self.residual)
        self.inputs = tuple(x for x in present if x is not None)
        self.outputs = (chain.last.output,)
        self.recorded = chain.recorded
        self.trains_weight = convolution.recorded and self.weight.differentiable
        self.trains_norm = (
            norm is not None
            and norm.recorded
            and any(x is not None and x.differentiable for x in (self.scale, self.shift))
        )
        # With the weight folded, what BatchNorm has normalized does not exist.
        self.folds = norm is not None and not chain.moves and not self.trains_weight and not self.trains_norm
        self.constant = not self.trains_weight  # it is packed once, and again when it has changed
        self.recomputes = self.recorded and chain.moves and chain.residual is None
        self.source: ConvolutionStep | None = None  # what computes the input again in the backward pass
        self.postpones = False  # the shift and the activation are left to the pooling that follows
        self._packed: Any = None
        self._shift: Array | None = None

    def describe(self) -> str:
        """The algorithm, and what is done besides."""
        parts = [self.plan.name, f"{list(self.input.shape)} -> {list(self.outputs[0].shape)}"]
        if self.chain.norm is not None:
            parts.append("batch norm folded" if self.folds else "batch norm")
        if self.residual is not None:
            parts.append("addition")
        if self.chain.kind is not None:
            parts.append("relu" if self.chain.kind == "relu" else f"clamp to {self.chain.kind}")
        return ", ".join(parts)

    # What depends on tensors from outside alone ----------------------------------------------------------------------

    def _affine(self) -> tuple[Array, Array]:
        """Scale and shift of BatchNorm by given statistics, float64 (C,)."""
        assert self.chain.norm is not None
        keywords = self.chain.norm.keywords
        invstd = inverse_deviation(keywords["running_var"].astype(np.float64), keywords["eps"])
        scale, shift = _tensor(self.scale), _tensor(self.shift)
        factor = invstd if scale is None else invstd * scale
        offset = -keywords["running_mean"] * factor
        return factor, offset if shift is None else offset + shift

    def prepare(self) -> None:
        """Packs a weight that is not trained, with BatchNorm folded into it where possible."""
        if not self.constant:
            return
        weight, bias = self.weight.tensor._data, _tensor(self.bias)
        if self.folds:
            factor, offset = self._affine()
            # rounded once, after the product in double precision
            weight = (weight.astype(np.float64) * factor[:, None, None, None]).astype(weight.dtype)
            bias = (offset if bias is None else offset + bias * factor).astype(weight.dtype)
        self._packed, self._shift = self.plan.pack(weight), bias

    @property
    def can_postpone(self) -> bool:
        """Whether shift and activation may come after a maximum: nothing is trained, nothing else is done here."""
        norm_apart = self.chain.norm is not None and not self.folds
        return not self.recorded and not norm_apart and self.residual is None and self.chain.kind is not None

    def offset(self) -> Array | None:
        """What is added to each channel, (C,): the bias, with BatchNorm's shift where that is folded."""
        return self._shift if self.constant else _tensor(self.bias)

    # Forward ---------------------------------------------------------------------------------------------------------

    def forward(self, run: Run) -> None:
        """Convolves and does the rest."""
        x = run.values[self.places[self.input]]
        shape, dtype = self.outputs[0].shape, self.outputs[0].dtype
        packed = self._packed if self.constant else self._pack()
        bias = None if self.postpones else self._shift if self.constant else _tensor(self.bias)
        residual = None if self.residual is None else ordered(run, run.values[self.places[self.residual]])
        norm = None if self.folds else self.chain.norm
        place = self.places[self.outputs[0]]
        z = (
            run.pool.empty((*shape[2:], *shape[:2]), dtype)
            if norm is not None
            else run.destination(place, self.outputs[0])
        )
        result = z
        kind = None if self.postpones else self.chain.kind
        if norm is None:
            epilogue = None
            if residual is not None or kind is not None:
                epilogue = Finish(z, residual, kind)

            self.plan.forward(pixels(x), packed, z, run.space, bias, epilogue)
            kept: Any = None
        elif self.chain.moves:
            statistics = fused_norm.ChannelStatistics(shape[1], dtype, run.space)
            self.plan.forward(
                pixels(x), packed, z, run.space, bias, lambda rows, images: statistics.add(z[rows, :, images])
            )
            mean, var, count = statistics.result()
            keywords = norm.keywords
            _move(keywords, mean, var, count)
            invstd = inverse_deviation(var, keywords["eps"])
            result = self._normalize(run, z, mean, invstd, residual)
            kept = mean, invstd
        else:
            self.plan.forward(pixels(x), packed, z, run.space, bias)
            keywords = norm.keywords
            mean = keywords["running_mean"].astype(np.float64)
            invstd = inverse_deviation(keywords["running_var"].astype(np.float64), keywords["eps"])
            result = self._normalize(run, z, mean, invstd, residual)
            kept = mean, invstd
        run.values[place] = result.transpose(2, 3, 0, 1)
        if self.recorded:
            run.kept[self.number] = (
                x if self.trains_weight and self.source is None else None,
                z if kept is not None else None,
                result if kind is not None and not self.recomputes else None,
                kept,
            )

    def _pack(self) -> Any:
        weight = self.weight.tensor._data
        return kept(weight, self.plan, "forward", lambda: self.plan.pack(weight))

    def output_again(self, run: Run) -> Array:
        """The output, (H, W, N, C), in the backward pass; computed once, until the step's own backward."""
        place = self.places[self.outputs[0]]
        if place not in run.again:
            _, z, _, (mean, invstd) = run.kept[self.number]
            run.again[place] = self._normalize(run, z, mean, invstd, None)
        return run.again[place]

    def _normalize(self, run: Run, z: Array, mean: Array, invstd: Array, residual: Array | None) -> Array:
        factor, offset, middle = fused_norm.coefficients(
            mean, invstd, _tensor(self.scale), _tensor(self.shift), z.dtype
        )
        out = run.destination(self.places[self.outputs[0]], self.outputs[0])
        fused_norm.normalize(z, factor, offset, out, center=middle, residual=residual, activation=self.chain.kind)
        return out

    # Backward --------------------------------------------------------------------------------------------------------

    def backward(self, run: Run) -> None:
        """The gradients of the input, the residual and all that is trained."""
        taken = run.take_gradient(self.places[self.outputs[0]])
        if taken is None or not self.recorded:
            return
        gradient, owned = taken
        if not (owned and pixels(gradient).flags.c_contiguous):
            copy = run.pool.empty_hwnc(gradient.shape, gradient.dtype)
            np.copyto(copy, gradient)
            gradient = copy
        g = pixels(gradient)
        del gradient, taken
        x, z, result, kept = run.kept[self.number]
        kind = self.chain.kind
        if kept is None:
            if kind is not None:
                fused_norm.mask_gradient(g, result, kind, g, run.space)
            self._convolve_back(run, x, g, folded=self.folds)
            self._send_residual(run, g)
            return
        mean, invstd = kept
        if self.recomputes:
            result = self.output_again(run) if kind is not None else None
            run.again.pop(self.places[self.outputs[0]], None)
        centered = fused_norm.far_mean(mean * invstd, 1)
        total, product = fused_norm.masked_gradient_sums(
            g, z, mean, g, output=result, activation=kind, centered=centered, space=run.space
        )
        scale = _tensor(self.scale)
        factor = invstd if scale is None else invstd * scale
        self._send(run, self.scale, product * invstd)
        self._send(run, self.shift, total)
        if self.trains_weight or self.input.differentiable or self.bias is not None:
            below = run.pool.empty(g.shape, g.dtype)
            if self.chain.moves:
                count = max(1, g.size // g.shape[3])
                level, slope = total / count, product * invstd * invstd / count
                fused_norm.normalize_backward(
                    g, z, factor, mean, level, slope, below, centered=centered, space=run.space
                )
            else:
                fused_norm.scale_gradient(g, factor, below, space=run.space)
            self._send_residual(run, g)
            del g
            self._convolve_back(run, x, below, folded=False)
        else:
            self._send_residual(run, g)

    def _send(self, run: Run, value: Value | None, gradient: Array) -> None:
        if value is not None and value.differentiable:
            run.add_gradient(self.places[value], gradient.astype(value.dtype), owned=True)

    def _send_residual(self, run: Run, g: Array) -> None:
        residual, addition = self.residual, self.chain.addition
        if residual is None or not residual.differentiable or addition is None or not addition.recorded:
            return
        # this step has read it for the last time
        run.add_gradient(self.places[residual], g.transpose(2, 3, 0, 1), owned=True)

    def _convolve_back(self, run: Run, x: Array | None, g: Array, folded: bool) -> None:
        wants_input = self.input.differentiable and self.chain.convolution.recorded
        if self.bias is not None and self.bias.differentiable:
            self._send(run, self.bias, fused_norm.channel_sums(g))
        if not wants_input and not self.trains_weight:
            return
        weight = self.weight.tensor._data
        if folded:
            weight = (weight * self._affine()[0][:, None, None, None]).astype(weight.dtype)
        n, c, h, w = self.input.shape
        grad_x = run.pool.empty((h, w, n, c), self.input.dtype) if wants_input else None
        grad_weight = run.empty_gradient(self.places[self.weight], self.weight) if self.trains_weight else None
        if self.trains_weight and self.source is not None:
            x = self.source.output_again(run).transpose(2, 3, 0, 1)
        self.plan.backward(None if x is None else pixels(x), g, weight, grad_x, grad_weight, run.space)
        if grad_weight is not None:
            run.add_gradient(self.places[self.weight], grad_weight, owned=True)
        if grad_x is not None:
            run.add_gradient(self.places[self.input], grad_x.transpose(2, 3, 0, 1), owned=True)


def shape_of(convolution: Operation) -> ConvolutionShape:
    """What the plan of a convolution depends on."""
    input, weight, _ = convolution.operands
    keywords = convolution.keywords
    k, _, kh, kw = weight.shape
    n, c, h, w = input.shape
    strides, paddings, dilations = (tuple(keywords[name]) for name in ("stride", "padding", "dilation"))
    return ConvolutionShape(
        n, c, h, w, k, kh, kw, strides, paddings, dilations, keywords["groups"], convolution.output.dtype
    )


def _move(keywords: dict[str, Any], mean: Array, var: Array, count: int) -> None:
    """Moves running statistics towards those of the batch, as ``ops.normalization`` does."""
    running_mean, running_var = keywords["running_mean"], keywords["running_var"]
    if running_mean is None or running_var is None or count == 0:
        return
    momentum = keywords["momentum"]
    running_mean += momentum * (mean.astype(running_mean.dtype) - running_mean)
    running_var += momentum * ((var * (count / (count - 1))).astype(running_var.dtype) - running_var)
