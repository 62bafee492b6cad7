"""Initial values of parameters, with the formulas of ``torch.nn.init``; each fills a tensor in place and returns it.

Random values come from ``distgrad.default_generator`` unless another generator is given, so that ``manual_seed``
decides on them.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from ..autograd import Tensor, no_grad
from ..autograd.tensor import Array
from ..ops.random import Generator, _stream
from ..registry import no_attribute

_LINEAR = (
    "linear",
    *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)),
    "sigmoid",
)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights must be larger to keep the variance through ``nonlinearity``.

    Args:
        nonlinearity: "linear", "sigmoid" or a convolution ("conv2d", "conv_transpose2d", ...) (1), "tanh" (5/3), "relu"
            (sqrt 2), "leaky_relu" (sqrt(2 / (1 + slope^2))) or "selu" (3/4, an empirical value).
        param: the negative slope of "leaky_relu", 0.01 without it.

    Raises:
        ValueError: another name, or a slope that is not a number.
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3.0
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "selu":
        return 0.75
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1.0 + slope**2))
    raise ValueError(
        f"Unsupported nonlinearity {nonlinearity}: one of {', '.join(_LINEAR)}, tanh, relu, leaky_relu, selu"
    )


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs feed an output of this weight, and how many outputs an input: (out, in, *kernel)."""
    if tensor.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fill(tensor: Tensor, values: Array) -> Tensor:
    with no_grad():
        tensor.copy_(Tensor(np.asarray(values)))  # 0-d draws are NumPy scalars
    return tensor


def _precision(tensor: Tensor) -> type[np.float32] | type[np.float64]:
    """The dtype to draw in."""
    return np.float64 if tensor.dtype == np.float64 else np.float32


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in [a, b).

    Raises:
        RuntimeError: ``a`` is above ``b``.
    """
    if a > b:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={a} > to={b}")
    drawn = _stream(generator).random(tuple(tensor.shape), dtype=_precision(tensor))
    drawn *= b - a
    drawn += a
    return _fill(tensor, drawn)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with the given mean and standard deviation.

    Raises:
        RuntimeError: a negative standard deviation.
    """
    if std < 0.0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    drawn = _stream(generator).standard_normal(tuple(tensor.shape), dtype=_precision(tensor))
    drawn *= std
    drawn += mean
    return _fill(tensor, drawn)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normal with the given mean and standard deviation, of which only values in [a, b] are kept.

    Drawn by rejection, which is exact also where the interval lies far out in a tail.

    Raises:
        ValueError: an empty interval, or a standard deviation that is not positive.
    """
    if not a < b or std <= 0.0:
        raise ValueError(f"trunc_normal_: a must be below b and std positive, got a={a}, b={b}, std={std}")
    low, high = (a - mean) / std, (b - mean) / std
    flip = high < 0.0  # so that the interval reaches to the right of 0, where the formulas below hold
    if flip:
        low, high = -high, -low
    stream, values = _stream(generator), np.empty(tensor.numel())
    kept = 0
    likely = 0.5 * (math.erf(high / math.sqrt(2.0)) - math.erf(low / math.sqrt(2.0))) > 0.1
    nearest = max(low, 0.0)
    # beyond this the density has fallen by exp(-40) from its largest value, which no draw would ever meet
    end = min(high, nearest + 40.0 / max(nearest, 1.0), nearest + 9.0)
    start = max(low, -9.0)
    while kept < values.size:
        wanted = max(2 * (values.size - kept), 16)
        if likely:
            drawn = stream.standard_normal(wanted)
            drawn = drawn[(drawn >= low) & (drawn <= high)]
        else:
            drawn = stream.uniform(start, end, wanted)
            drawn = drawn[stream.random(wanted) < np.exp(0.5 * (nearest**2 - drawn**2))]
        drawn = drawn[: values.size - kept]
        values[kept : kept + drawn.size] = drawn
        kept += drawn.size
    values = mean + std * (-values if flip else values)
    return _fill(tensor, np.clip(values, a, b).reshape(tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """``val`` everywhere."""
    return _fill(tensor, np.full(tuple(tensor.shape), val))


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """1 on the diagonal of a matrix and 0 elsewhere, so that a linear layer passes on as much of its input as it can.

    Raises:
        ValueError: the tensor is no matrix.
    """
    if tensor.ndim != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, and this one has {tensor.ndim}")
    return _fill(tensor, np.eye(*tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """1 in the middle of the kernel of each channel's own output and 0 elsewhere: a convolution that keeps its input.

    Args:
        tensor: the weight, (out, in, *kernel) with a kernel of 1 to 3 dimensions.
        groups: in each of them the outputs keep the group's inputs, as many as there are.

    Raises:
        ValueError: another number of dimensions, or groups that do not divide the outputs.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError(f"Only tensors with 3, 4, or 5 dimensions are supported, and this one has {tensor.ndim}")
    if tensor.shape[0] % groups:
        raise ValueError(f"dim 0 must be divisible by groups, and they are {tensor.shape[0]} and {groups}")
    values = np.zeros(tuple(tensor.shape))
    outputs = tensor.shape[0] // groups
    middle = tuple(n // 2 for n in tensor.shape[2:])
    for group in range(groups):
        for channel in range(min(outputs, tensor.shape[1])):
            values[(group * outputs + channel, channel, *middle)] = 1
    return _fill(tensor, values)


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """``gain`` times a random matrix with orthonormal rows, or columns where there are fewer (Saxe et al., 2013).

    Args:
        tensor: (rows, ...), whose other dimensions count as one.
        gain: the factor.
        generator: where the random numbers come from.

    Raises:
        ValueError: the tensor has fewer than 2 dimensions.
    """
    if tensor.ndim < 2:
        raise ValueError(f"Only tensors with 2 or more dimensions are supported, and this one has {tensor.ndim}")
    if not tensor.numel():
        return tensor
    shape = (tensor.shape[0], tensor.numel() // tensor.shape[0])
    drawn = _stream(generator).standard_normal(shape)
    q, r = np.linalg.qr(drawn if shape[0] >= shape[1] else drawn.T)
    q *= np.sign(np.diag(r))  # makes the choice uniform (Mezzadri, 2006)
    return _fill(tensor, gain * (q if shape[0] >= shape[1] else q.T).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal with mean 0, but for a share of each column, chosen at random, that is 0 (Martens, 2010).

    Args:
        tensor: a matrix.
        sparsity: the share, rounded up to whole elements.
        std: the standard deviation.
        generator: where the random numbers come from.

    Raises:
        ValueError: the tensor is no matrix.
    """
    if tensor.ndim != 2:
        raise ValueError(f"Only tensors with 2 dimensions are supported, and this one has {tensor.ndim}")
    rows, columns = tensor.shape
    stream = _stream(generator)
    values = stream.standard_normal((rows, columns)) * std
    zeros = min(math.ceil(sparsity * rows), rows)
    for column in range(columns):
        values[stream.permutation(rows)[:zeros], column] = 0
    return _fill(tensor, values)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in ±gain * sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    bound = gain * math.sqrt(6.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""
    std = gain * math.sqrt(2.0 / sum(_calculate_fan_in_and_fan_out(tensor)))
    return normal_(tensor, 0.0, std, generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    modes = ("fan_in", "fan_out")
    if mode.lower() not in modes:
        raise ValueError(f"Mode {mode} not supported, please use one of {list(modes)}")
    fan = _calculate_fan_in_and_fan_out(tensor)[modes.index(mode.lower())]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _is_empty(tensor: Tensor) -> bool:
    if tensor.numel() == 0:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=3)
        return True
    return False


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform in ±gain * sqrt(3 / fan) (He et al., 2015).

    Args:
        tensor: the weight, (out, in, *kernel).
        a: the negative slope, for "leaky_relu".
        mode: "fan_in" keeps the variance forward, "fan_out" backward.
        nonlinearity: what follows the layer; see ``calculate_gain``.
        generator: where the random numbers come from.
    """
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan) (He et al., 2015). Arguments as ``kaiming_uniform_``."""
    if _is_empty(tensor):
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "eye_",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "sparse_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]


def __getattr__(name: str) -> object:
    """Says that there is no such name, and which is nearest."""
    raise no_attribute("module 'distgrad.nn.init'", name, __all__)
