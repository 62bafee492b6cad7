"""A product that is linear in two inputs."""

from __future__ import annotations

import math

from ..autograd import Tensor
from .linalg import matmul
from .shape import reshape


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``out[k] = input1 @ weight[k] @ input2 + bias[k]``, as ``torch.nn.functional.bilinear``.

    Args:
        input1: (..., in1).
        input2: (..., in2), with the same leading dimensions.
        weight: (out, in1, in2).
        bias: (out,).

    Returns:
        (..., out).

    Raises:
        RuntimeError: shapes that do not fit.
    """
    if weight.ndim != 3:
        raise RuntimeError(f"bilinear(): weight has to be (out, in1, in2), but its shape is {list(weight.shape)}")
    if input1.ndim != input2.ndim or not input1.ndim:
        raise RuntimeError(
            f"bilinear(): input dimensions do not match: got {input1.ndim} and {input2.ndim}, and each has at least 1"
        )
    lead = input1.shape[:-1]
    for dim, (n, m) in enumerate(zip(lead, input2.shape[:-1], strict=True)):
        if n != m:
            raise RuntimeError(f"bilinear(): input batch dimensions do not match at dim {dim}: got {n} and {m}")
    out, *sizes = weight.shape
    for number, (given, size) in enumerate(zip((input1, input2), sizes, strict=True), 1):
        if given.shape[-1] != size:
            raise RuntimeError(
                f"bilinear(): input{number} size does not match weight size: got {given.shape[-1]} but expected {size}"
            )
    if bias is not None and tuple(bias.shape) != (out,):
        raise RuntimeError(
            f"bilinear(): bias size does not match weight size: got {list(bias.shape)} but expected {out}"
        )
    rows = math.prod(lead)
    # (rows, in1) @ (in1, in2 * out) -> (rows, in2, out), then the sum over in2 with input2
    table = reshape(weight.permute(1, 2, 0), (sizes[0], sizes[1] * out))
    halfway = reshape(matmul(reshape(input1, (rows, sizes[0])), table), (rows, sizes[1], out))
    result = matmul(reshape(input2, (rows, 1, sizes[1])), halfway)
    result = reshape(result, (*lead, out))
    return result if bias is None else result + bias
