"""Primitives that look at each element on its own, or only at the last dimensions, and broadcast the others."""

from __future__ import annotations

from typing import Any

from ... import ops
from ...autograd.primitive import Primitive
from .common import Flags, Keywords, Values, aligned, everywhere, rule, sample_shape, with_batch


@rule(
    "Where Add Sub Mul Div DivFloor DivTrunc FloorDivide Fmod Remainder Pow Xlogy Gcd Lcm",
    "Eq Ne Lt Le Gt Ge Isclose LogicalAnd LogicalOr LogicalXor LogicalNot",
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot BitwiseLeftShift BitwiseRightShift",
    "Maximum Minimum Fmax Fmin Clamp ClampMin ClampMax ClampBetween",
    "Atan2 Hypot Logaddexp Logaddexp2 Copysign Nextafter Ldexp Heaviside Addcmul Addcdiv Lerp LerpBy",
)
def broadcasting(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Operands that broadcast, and whose gradients are summed to their shape."""
    return primitive(*aligned(values, flags), **keywords)


@rule(
    "Alias Clone ToCopy ToIntegral ViewAsDtype Zeros Fill Neg Abs Sign Exp Exp2 Expm1 Log Log1p Log2 Log10 Logit",
    "Sqrt Rsqrt Reciprocal Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh Sinc Sigmoid Relu",
    "Isnan Isinf Isfinite Isposinf Isneginf Isreal Signbit NanToNum Floor Ceil Trunc Round Frac",
    "Times Deg2rad Rad2deg Erf Erfc Erfinv Polygamma Digamma Lgamma",
    "LogSigmoid Softplus Silu Mish Gelu Softsign Tanhshrink LeakyRelu Elu Hardtanh Hardsigmoid Hardswish Threshold",
    "Hardshrink Softshrink",
    # these work on the last dimensions, of any number of batches
    "Tril Triu QuantileOrder CountNan Resample",
    "LinalgCholeskyEx LinalgSvd LinalgSvdvals LinalgEigh LinalgEigvalsh LinalgInvEx Cofactors LinalgDet LinalgSlogdet",
    "LinalgLuFactorEx PermutationMatrix LinalgMatrixExp MatrixScale",
)
def alone(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """One operand, to which a batch in front is nothing special."""
    return primitive(*values, **keywords)


@rule("Copy MseLoss HuberLoss BinaryCrossEntropy LstmCell GruCell")
def alike(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Operands of one shape, which their gradients rely on."""
    return primitive(*everywhere(values, flags, size), **keywords)


@rule("BinaryCrossEntropyWithLogits Prelu Dropout AttentionWeights Sample")
def beside_the_first(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """A first operand of the result's shape, and others that broadcast to it."""
    first, *others = values
    whole = [with_batch(first, flags[0], size)]
    if primitive.name == "BinaryCrossEntropyWithLogits":  # input and target are alike
        whole.append(with_batch(others.pop(0), flags[1], size))
    known = len(whole)
    return primitive(*aligned((*whole, *others), (*(True,) * known, *flags[known:])), **keywords)


@rule("LinalgCross")
def along_a_dimension(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Operands of as many dimensions each, that broadcast, but for ``dim``."""
    return primitive(*everywhere(values, flags, size), dim=keywords["dim"] + 1)


@rule("LinalgSolveTriangular")
def triangular_systems(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Matrices, of batches that broadcast."""
    return primitive(*aligned(values, flags), **keywords)


@rule("LinalgSolveEx LinalgLstsq")
def systems(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """As triangular systems; what is known of the matrices A has their batch dimensions, not the solution's."""
    lead = sample_shape(values[0], flags[0])[:-2]
    A, B = aligned(values, flags)
    solution, *known = primitive(A, B, **keywords)
    shaped = [ops.reshape(x, ((size,) if flags[0] else ()) + lead + tuple(x.shape[A.ndim - 2 :])) for x in known]
    return (solution, *everywhere(tuple(shaped), (flags[0],) * len(shaped), size))


@rule("LinalgQr")
def triangular_factors(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Q and R; Q is an empty vector where it is not asked for."""
    Q, R = primitive(*values, **keywords)
    return with_batch(Q, keywords["mode"] != "r", size), R


@rule("LinalgPinv LinalgMatrixRank")
def with_tolerances(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Matrices (..., m, n), and what counts as zero in them, (...)."""
    A, *tolerances = values
    whole = with_batch(A, flags[0], size)
    fitted = []
    for x, flag in zip(tolerances, flags[1:], strict=True):
        missing = whole.ndim - 3 - len(sample_shape(x, flag))
        fitted.append(ops.reshape(x, (size, *(1,) * missing, *x.shape[1:])) if flag else x)
    return primitive(whole, *fitted, **keywords)


@rule("BlockDiag")
def blocks(primitive: Primitive, size: int, values: Values, flags: Flags, keywords: Keywords) -> Any:
    """Each block surrounded by zeros to the full width, one below the other."""
    parts = everywhere(values, flags, size)
    width, start, rows = sum(part.shape[2] for part in parts), 0, []
    for part in parts:
        rows.append(ops.constant_pad_nd(part, (start, width - start - part.shape[2])))
        start += part.shape[2]
    return ops.cat(rows, 1)
