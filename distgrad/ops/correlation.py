"""Covariances and correlations of variables from observations of them."""

from __future__ import annotations

import warnings

import numpy as np

from ..autograd import Tensor
from .arguments import tensor_argument
from .diagonals import diagonal
from .elementwise import sqrt
from .extremum import clamp
from .linalg import matmul
from .promotion import cast, get_default_dtype, result_type
from .reduction import sum
from .samples import all_values, each_sample, is_batched
from .shape import reshape, squeeze, t

__all__ = [  # what distgrad itself offers
    "corrcoef",
    "cov",
]
METHODS = "corrcoef cov".split()  # what a Tensor offers


def _check_weights(name: str, weights: Tensor, count: int) -> None:
    if weights.ndim > 1:
        raise RuntimeError(
            f"cov(): expected {name} to have one or fewer dimensions but got {name} with {weights.ndim} dimensions"
        )
    kind, wanted = ("integral", "iu") if name == "fweights" else ("floating point", "f")
    if weights.dtype.kind not in wanted:
        raise RuntimeError(f"cov(): expected {name} to have {kind} dtype but got {name} with {weights.dtype} dtype")
    if weights.numel() != count:
        raise RuntimeError(
            f"cov(): expected {name} to have the same numel as there are observations in the input but got "
            f"{weights.numel()} != {count}"
        )
    if (all_values(weights) < 0).any():
        raise RuntimeError(f"cov(): {name} cannot be negative")


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """The covariances of variables, as ``torch.cov``.

    Args:
        input: (variables, observations), or (observations) of one variable; any dtype but bool, integers are computed
            in the default dtype.
        correction: subtracted from the number of observations; where it is not less, a warning says so.
        fweights: (observations), integers: how often each counts.
        aweights: (observations), floating point: how important each is.

    Returns:
        (variables, variables), symmetric; 0-d of one variable.

    Raises:
        RuntimeError: more than two dimensions, bools, or weights of the wrong shape, dtype or sign.
    """
    if is_batched(fweights, aweights):
        of_each: Tensor = each_sample(cov, input, correction=correction, fweights=fweights, aweights=aweights)
        return of_each
    tensor_argument(input, "cov")
    if input.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    if input.dtype == np.bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = input if input.is_floating_point() else cast(input, get_default_dtype())
    x = x if x.ndim == 2 else reshape(x, (1, x.numel()))
    count = x.shape[1]
    weights: Tensor | None = None
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is not None:
            _check_weights(name, given, count)
            given = reshape(given, (count,))
            weights = given if weights is None else weights * given
    lost: Tensor | float = correction
    if weights is None:
        total: Tensor | float = float(count)
        scaled = centred = x - sum(x, 1, True) / total
    else:
        weights = cast(weights, result_type(x, weights))
        total = sum(weights)
        if count and total._data == 0:
            raise RuntimeError("cov(): weights sum to zero, can't be normalized")
        centred = x - sum(x * weights, 1, True) / total
        scaled = centred * weights
        if aweights is not None:
            lost = correction * sum(weights * reshape(aweights, (count,))) / total
    degrees = total - lost
    if float(degrees) <= 0:
        warnings.warn(
            "cov(): degrees of freedom is <= 0. Correction should be strictly less than the number of observations: "
            f"{correction} of {count}.",
            stacklevel=2,
        )
        degrees = 0.0
    return squeeze(matmul(scaled, t(centred)) / degrees)


def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlations of variables: ``cov`` over the standard deviations, in [-1, 1].

    Args:
        input: (variables, observations), or (observations) of one variable.

    Returns:
        (variables, variables), symmetric with ones on the diagonal; 0-d of one variable. NaN where a variable is
        constant.

    Raises:
        RuntimeError: more than two dimensions, or bools.
    """
    if tensor_argument(input, "corrcoef").ndim > 2:
        raise RuntimeError(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with {input.ndim} dimensions"
        )
    covariances = cov(input)
    if not covariances.ndim:
        return covariances / covariances
    deviations = sqrt(diagonal(covariances))
    return clamp(covariances / reshape(deviations, (-1, 1)) / deviations, -1.0, 1.0)
