"""Dropout: elements or whole channels zeroed at random (Srivastava et al., 2014; Klambauer et al., 2017)."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..kernels.layout import as_hwnc, is_hwnc_alone
from .arguments import tensor_argument
from .elementwise import add, where
from .inplace import replace
from .random import Generator, _draw
from .shape import squeeze, unsqueeze


def _thinned(input: Any, kept: Any, scale: float) -> Any:
    if kept.shape == input.shape and is_hwnc_alone(input) and not is_hwnc_alone(kept):
        kept = as_hwnc(kept).transpose(2, 3, 0, 1)  # the mask was drawn in the order of the dimensions
    out = np.multiply(input, kept, dtype=input.dtype)
    out *= input.dtype.type(scale)
    return out


# Only the mask is kept for the backward pass, a byte an element.
_dropout: Primitive = define(
    "Dropout",
    _thinned,
    ("input", "kept"),
    input=lambda g, kept, scale: _dropout(g, kept, scale=scale),
)

# SELU's value far to the left: what alpha dropout sets an element to.
_SATURATED = -1.7580993408473766


def _drop(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, generator: Any, channels: bool, alpha: bool
) -> Tensor:
    tensor_argument(input, name)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0 or not input.numel():
        return input
    if not input.is_floating_point():
        raise RuntimeError(f"{name}: result type float32 can't be cast to {input.dtype}; it takes floating-point input")
    shape = tuple(input.shape)
    if channels:
        if input.ndim < 2:
            raise RuntimeError(f"Feature dropout requires at least 2 dimensions in the input, but {name} got {shape}")
        shape = shape[:2] + (1,) * (input.ndim - 2)
    kept = _draw(generator, shape, lambda stream, size: stream.random(size, dtype=np.float32) >= p)
    if p == 1.0:
        out: Tensor = _dropout(input, kept, scale=1.0)
    elif alpha:
        # scaled and shifted so that mean 0 and variance 1 stay
        scale = 1.0 / math.sqrt((_SATURATED**2 * p + 1.0) * (1.0 - p))
        low, high = (input.dtype.type(x - _SATURATED * scale * p) for x in (_SATURATED * scale, 0.0))
        out = add(_dropout(input, kept, scale=scale), where(kept, Tensor(high), Tensor(low)))
    else:
        out = _dropout(input, kept, scale=1.0 / (1.0 - p))
    return replace(input, out) if inplace else out


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Zeroes each element with probability ``p`` and scales the rest by 1 / (1 - p), while ``training``.

    Args:
        input: any shape.
        p: the probability.
        training: whether to do so at all.
        inplace: write the result over the input.
        generator: where the random numbers come from, ``distgrad.default_generator`` without it.

    Raises:
        ValueError: ``p`` is not in [0, 1].
    """
    return _drop("dropout", input, p, training, inplace, generator, channels=False, alpha=False)


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Sets each element with probability ``p`` to the value that SELU saturates at, then scales and shifts all so that
    mean 0 and variance 1 stay, while ``training``. Arguments as of ``dropout``."""
    return _drop("alpha_dropout", input, p, training, inplace, generator, channels=False, alpha=True)


def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``alpha_dropout`` of whole channels: (N, C, ...), where all elements of a channel share one draw."""
    return _drop("feature_alpha_dropout", input, p, training, inplace, generator, channels=True, alpha=True)


def _channels(
    name: str, spatial: int, input: Tensor, p: float, training: bool, inplace: bool, generator: Any
) -> Tensor:
    """Dropout of channels in (N, C, ...) with ``spatial`` further dimensions, or without the N as a batch of one."""
    if input.ndim == spatial + 2:
        return _drop(name, input, p, training, inplace, generator, channels=True, alpha=False)
    out = _drop(name, unsqueeze(input, 0), p, training, inplace, generator, channels=True, alpha=False)
    return input if inplace else squeeze(out, 0)


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``dropout`` of whole channels: (N, C, L) or (C, L).

    Raises:
        RuntimeError: another number of dimensions.
        ValueError: ``p`` is not in [0, 1].
    """
    if tensor_argument(input, "dropout1d").ndim not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.ndim}D input. Note that dropout1d exists to "
            "provide channel-wise dropout on inputs with 1 spatial dimension, a channel dimension, and an optional "
            "batch dimension (i.e. 2D or 3D inputs)."
        )
    return _channels("dropout1d", 1, input, p, training, inplace, generator)


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``dropout`` of whole channels: (N, C, H, W). As in PyTorch three dimensions are taken for (N, C, L), and every
    number of dimensions but four is warned of."""
    if tensor_argument(input, "dropout2d").ndim not in (3, 4):
        _warn("dropout2d", input.ndim, 2, "3D or 4D")
    elif input.ndim == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D dropout behavior is "
            "desired - input is interpreted as shape (N, C, L), where C is the channel dim. Use dropout1d for that.",
            stacklevel=2,
        )
    return _drop("dropout2d", input, p, training, inplace, generator, channels=True, alpha=False)


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """``dropout`` of whole channels: (N, C, D, H, W) or (C, D, H, W); another number of dimensions is warned of."""
    if tensor_argument(input, "dropout3d").ndim not in (4, 5):
        _warn("dropout3d", input.ndim, 3, "4D or 5D")
    return _channels("dropout3d", 3, input, p, training, inplace, generator)


def _warn(name: str, ndim: int, spatial: int, expected: str) -> None:
    warnings.warn(
        f"{name}: Received a {ndim}-D input to {name}, which is deprecated and will result in an error in a future "
        f"release. Note that {name} exists to provide channel-wise dropout on inputs with {spatial} spatial "
        f"dimensions, a channel dimension, and an optional batch dimension (i.e. {expected} inputs).",
        stacklevel=3,
    )
