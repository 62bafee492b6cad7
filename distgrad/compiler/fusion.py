"""From operations to steps: which of them become one."""

from __future__ import annotations

from ..kernels.convolution_choice import choose
from ..kernels.fused_norm import Activation
from .convolution_step import ConvolutionChain, ConvolutionStep, shape_of
from .graph import Graph, Operation, Value
from .pooling_step import MaxPoolStep, is_max_pool
from .segment import segmented
from .steps import EffectStep, PrimitiveStep, Step


def steps_of(graph: Graph, algorithm: str) -> list[Step]:
    """The steps of ``graph``, in an order in which every value is there when it is read.

    Args:
        graph: what was captured.
        algorithm: of convolutions, as ``backends.convolution``.
    """
    users = graph.users()
    kept = set(graph.outputs)
    taken: set[Operation] = set()
    chains: dict[Operation, ConvolutionChain] = {}  # by the last operation: there everything that it reads is there
    for operation in graph.operations:
        if _is_plain_convolution(operation):
            chain = _extended(operation, users, kept, taken)
            taken.update(x for x in (chain.convolution, chain.norm, chain.addition, chain.activation) if x is not None)
            chains[chain.last] = chain
    steps: list[Step] = []
    made: dict[Value, ConvolutionStep] = {}
    for operation in graph.operations:
        if operation in chains:
            chain = chains[operation]
            made[operation.output] = convolution = ConvolutionStep(
                chain, choose(shape_of(chain.convolution), algorithm, frozen=not chain.recorded)
            )
            steps.append(convolution)
        elif is_max_pool(operation):
            before = made.get(operation.operands[0])
            alone = operation.operands[0] not in kept and len(users[operation.operands[0]]) == 1
            if before is not None and alone and before.can_postpone:
                before.postpones = True
                steps.append(MaxPoolStep(operation, before.offset, before.chain.kind))
            else:
                steps.append(MaxPoolStep(operation))
        elif operation.effect is not None:
            steps.append(EffectStep(operation))
        elif operation not in taken:
            steps.append(PrimitiveStep(operation))
    for step in steps:
        if isinstance(step, ConvolutionStep) and step.trains_weight:
            before = made.get(step.input)
            if before is not None and before.recomputes:
                step.source = before
    return segmented(steps, kept, algorithm)


def _is_plain_convolution(operation: Operation) -> bool:
    """Two-dimensional, of floats, with a weight and a bias from outside."""
    if operation.name != "Convolution" or len(operation.output.shape) != 4 or operation.output.dtype.itemsize < 4:
        return False
    input, weight, bias = operation.operands
    from_outside = weight.tensor is not None and (bias is None or bias.tensor is not None)
    return isinstance(input, Value) and from_outside and 0 not in operation.output.shape


def _extended(
    convolution: Operation, users: dict[Value, list[Operation]], kept: set[Value], taken: set[Operation]
) -> ConvolutionChain:
    """The convolution and as many of the operations behind it as one step can do."""
    chain = ConvolutionChain(convolution)
    while True:
        value = chain.last.output
        readers = users.get(value, [])
        if len(readers) != 1 or value in kept or readers[0] in taken:
            return chain
        following = readers[0]
        # Where recording changes in the middle, a gradient ends there.
        if following.recorded != chain.last.recorded and chain.last.recorded:
            return chain
        if following.name in ("BatchNormEval", "NativeBatchNorm") and chain.last is convolution:
            _, scale, shift = following.operands
            if any(x is not None and x.tensor is None for x in (scale, shift)):
                return chain
            chain.norm = following
        elif following.name == "Add" and chain.addition is None and chain.activation is None:
            residual = next((x for x in following.operands if x is not value), None)
            if not isinstance(residual, Value) or residual.shape != value.shape or residual.dtype != value.dtype:
                return chain
            chain.addition, chain.residual = following, residual
        elif chain.activation is None and (kind := _activation(following)) is not None:
            chain.activation, chain.kind = following, kind
        else:
            return chain


def _activation(operation: Operation) -> Activation:
    if operation.name == "Relu":
        return "relu"
    if operation.name == "Hardtanh":
        low, high = operation.keywords["min_val"], operation.keywords["max_val"]
        return (float(low), float(high)) if low < high else None
    return None
