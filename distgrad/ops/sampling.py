"""Random numbers whose distribution tensors determine, and distributions written into a tensor in place.

The gradient through a drawn number is zero, as in PyTorch: a draw does not change a little when its parameter does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from .arguments import check_device, dtype_or_default, number, size_argument, tensor_argument
from .elementwise import add, broadcast_to, mul, sum_to
from .inplace import copy_
from .promotion import Dtype, cast
from .random import _EXACT, Generator, _draw, _draw_from, _integers, _normal, _only_floating, _uniform
from .samples import all_values, is_batched
from .shape import _common_shape

__all__ = [  # what distgrad itself offers
    "bernoulli",
    "multinomial",
    "normal",
    "poisson",
]
METHODS = (  # what a Tensor offers
    "bernoulli bernoulli_ cauchy_ exponential_ geometric_ log_normal_ multinomial normal_ random_ uniform_"
).split()

_drawn: Primitive = define(
    "Sample",
    lambda values, parameter, other: values,
    ("values", "parameter", "other"),
    parameter=lambda g, parameter_shape: sum_to(g * 0.0, parameter_shape),
    other=lambda g, other_shape: sum_to(g * 0.0, other_shape),
)

# From parameters -----------------------------------------------------------------------------------------------------


def _check_std(std: Any) -> None:
    if isinstance(std, Tensor):
        if (all_values(std) < 0).any():
            raise RuntimeError(f"normal expects all elements of std >= 0.0, but one is {all_values(std).min()}")
    elif not std >= 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal with the given mean and standard deviation.

    Args:
        mean: a tensor, one mean for each number, or a number for all.
        std: likewise; two tensors broadcast, and the result has the dtype of ``mean``.
        size: the shape, for two numbers.
        generator: where the numbers come from, ``default_generator`` without it.
        dtype: of the result, for two numbers.
        device: "cpu".
        requires_grad: for two numbers, whether it is a leaf that collects a gradient.

    Raises:
        RuntimeError: a negative standard deviation, shapes that do not broadcast, or another kind of dtype.
        TypeError: two numbers without a size, or a size beside a tensor.
    """
    check_device(device)
    given = [x for x in (mean, std) if isinstance(x, Tensor)]
    if bool(given) == (size is not None):
        raise TypeError("normal() takes a tensor as mean, as std or as both, or two numbers and a size")
    mean, std = (
        x if isinstance(x, Tensor) else number(x, "normal", name, place)
        for x, name, place in ((mean, "mean", 1), (std, "std", 2))
    )
    _check_std(std)
    kind = given[0].dtype if given else dtype_or_default(dtype)
    _only_floating("normal", kind)
    shape = _common_shape(*(x.shape for x in given)) if given else size_argument((), size, "normal")
    shift, scale = (cast(x.detach(), kind) if isinstance(x, Tensor) else kind.type(x) for x in (mean, std))
    values = add(mul(_standard_normal(generator, shape, kind, given), scale), shift)
    if not given:
        return values.requires_grad_() if requires_grad else values
    out: Tensor = _drawn(values, mean, std)
    return out


def _standard_normal(generator: Any, shape: tuple[int, ...], kind: Dtype, parameters: Sequence[Tensor]) -> Tensor:
    """For numbers that ``parameters`` of this common shape will scale and shift."""
    batched = [broadcast_to(x, shape) for x in parameters if is_batched(x)]
    if not batched:
        return _draw(generator, shape, lambda stream, size: _normal(stream, size, kind))
    like = batched[0] if len(batched) == 1 else add(*batched)
    return _draw_from(generator, like.detach(), lambda stream, values: _normal(stream, values.shape, kind))


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")


def _flips(name: str, generator: Any, p: Any, shape: tuple[int, ...], dtype: Dtype) -> Tensor:
    """1 with probability ``p`` (a number, or a tensor that broadcasts to ``shape``), else 0."""
    if isinstance(p, Tensor):
        _only_floating(name, p.dtype)
        chances = all_values(p)
        if not ((chances >= 0) & (chances <= 1)).all():
            raise RuntimeError(f"{name}(): Expected p_in >= 0 && p_in <= 1 to be true, but got probabilities outside")
        if is_batched(p):
            wide = broadcast_to(p.detach(), shape)
            return _draw_from(generator, wide, lambda stream, each: (stream.random(each.shape) < each).astype(dtype))
        p = chances
    else:
        _check_probability(p)
    return _draw(generator, shape, lambda stream, size: np.asarray(stream.random(size) < p).astype(dtype))


def bernoulli(input: Tensor, p: float | None = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability in each element of ``input``, else 0; in its shape and dtype.

    Args:
        input: probabilities, floating point.
        p: one probability for all instead; of ``input`` only shape and dtype count then.
        generator: where the numbers come from, ``default_generator`` without it.

    Raises:
        RuntimeError: a probability is not in [0, 1], or ``input`` is not floating point.
    """
    shape = tuple(tensor_argument(input, "bernoulli").shape)
    chance = input if p is None else number(p, "bernoulli", "p", 2)
    out: Tensor = _drawn(_flips("bernoulli", generator, chance, shape, input.dtype), input, None)
    return out


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson numbers with the rate in each element of ``input``; in its shape and dtype.

    Raises:
        RuntimeError: a rate is negative, or ``input`` is not floating point.
    """
    kind = tensor_argument(input, "poisson").dtype
    _only_floating("poisson", kind)
    if not (all_values(input) >= 0).all():
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    values = _draw_from(generator, input.detach(), lambda stream, rates: np.asarray(stream.poisson(rates)).astype(kind))
    out: Tensor = _drawn(values, input, None)
    return out


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Positions drawn with probabilities in proportion to the elements of each row, int64.

    Args:
        input: weights, (categories) or (rows, categories), floating point; rows need not add up to 1.
        num_samples: how many to draw from each row.
        replacement: whether a position may be drawn again.
        generator: where the numbers come from, ``default_generator`` without it.

    Returns:
        shape (num_samples) or (rows, num_samples). Without replacement, positions of weight 0 come last, after all
        others are drawn.

    Raises:
        RuntimeError: weights that are negative, not finite or all zero, another number of dimensions or dtype, or too
            many or no draws.
    """
    weights, count = tensor_argument(input, "multinomial"), operator.index(num_samples)
    if weights.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim, but its shape is {list(weights.shape)}")
    if weights.dtype.kind != "f":
        raise RuntimeError(f"multinomial only supports floating-point dtypes for input, got: {weights.dtype}")
    if count <= 0:
        raise RuntimeError(f"cannot sample n_sample <= 0 samples, but got {count}")
    if not replacement and count > weights.shape[-1]:
        raise RuntimeError(
            f"cannot sample n_sample > prob_dist.size(-1) samples without replacement: {count} of {weights.shape[-1]}"
        )
    values = all_values(weights)
    if not ((values >= 0) & np.isfinite(values)).all():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if not (values.astype(np.float64).sum(axis=-1) > 0).all():
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")

    def make(stream: np.random.Generator, weights: Any) -> Any:
        rows = weights.reshape(-1, weights.shape[-1]).astype(np.float64)
        if replacement:
            chosen = _with_replacement(stream, rows, count)
        else:
            # The first of competing exponential clocks is the i-th in proportion to its rate, and so for those left.
            clocks = rows / stream.standard_exponential(rows.shape)
            chosen = np.argsort(-clocks, axis=1, kind="stable")[:, :count]
        return chosen.astype(np.int64).reshape(*weights.shape[:-1], count)

    return _draw_from(generator, weights.detach(), make)


def _with_replacement(stream: np.random.Generator, rows: Any, count: int) -> Any:
    """By the inverse of the distribution function, in which categories of weight 0 take no room."""
    chosen = np.empty((len(rows), count), np.int64)
    for place, row in enumerate(rows):
        sums = np.cumsum(row)
        found = np.searchsorted(sums, stream.random(count) * sums[-1], side="right")
        chosen[place] = np.minimum(found, np.flatnonzero(row)[-1])  # a product may round to the whole sum
    return chosen


# Into a tensor -------------------------------------------------------------------------------------------------------


def _write(input: Tensor, generator: Any, make: Callable[[np.random.Generator, tuple[int, ...]], Any]) -> Tensor:
    """Fills the tensor with what ``make`` draws in its shape."""
    size, kind = tuple(input.shape), input.dtype
    drawn = _draw(generator, size, lambda stream, shape: np.asarray(make(stream, shape)).astype(kind, copy=False))
    return copy_(input, drawn)


def normal_(input: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with normal numbers of the given mean and standard deviation."""
    _check_std(std)
    _only_floating("normal_", input.dtype)
    kind = input.dtype.type
    return _write(input, generator, lambda stream, shape: _normal(stream, shape, input.dtype) * kind(std) + kind(mean))


def uniform_(input: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with uniform numbers in [from, to); the first is named ``from_``, as Python has a ``from``."""
    _only_floating("uniform_", input.dtype)
    limits = np.finfo(input.dtype)
    for name, value in (("from", from_), ("to", to)):
        if not limits.min <= value <= limits.max:
            raise RuntimeError(f"{name} is out of bounds for {input.dtype}: uniform_ got {value}")
    if from_ > to:
        raise RuntimeError(f"uniform_ expects to return a [from, to) range, but found from={from_} > to={to}")
    kind = input.dtype.type

    def make(stream: np.random.Generator, shape: tuple[int, ...]) -> Any:
        values = _uniform(stream, shape, input.dtype) * kind(to - from_) + kind(from_)
        # the sum may round up to the end, which is not part of the range
        return np.minimum(values, np.nextafter(kind(to), kind(from_))) if from_ < to else values

    return _write(input, generator, make)


def bernoulli_(input: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with 1 with probability ``p`` (a number, or a tensor that broadcasts), else 0; any dtype."""
    if isinstance(p, Tensor) and _common_shape(p.shape, input.shape) != tuple(input.shape):
        raise RuntimeError(
            f"bernoulli_: probabilities of shape {list(p.shape)} do not broadcast to shape {list(input.shape)}"
        )
    return copy_(input, _flips("bernoulli_", generator, p, tuple(input.shape), input.dtype))


def random_(input: Tensor, *args: Any, to: Any = None, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with integers: ``random_(from, to)`` in [from, to), ``random_(to)`` in [0, to), ``random_()``
    in all that the dtype holds from 0 on without gaps.

    Raises:
        RuntimeError: there is no such integer, or the dtype does not hold all of them.
        TypeError: something else than integers.
    """
    kind = input.dtype
    if len(args) > 2 or (len(args) == 2 and to is not None):
        raise TypeError("random_() takes (), (to) or (from, to)")
    given = [operator.index(x) for x in (*args, *(() if to is None else (to,)))]
    if not given:
        # as PyTorch: up to the largest integer, or the largest float below which all integers are exact
        most = 1 if kind.kind == "b" else _EXACT[kind.name] if kind.kind == "f" else int(np.iinfo(kind).max)
        return _write(input, generator, lambda stream, shape: stream.integers(0, most, shape, np.int64, endpoint=True))
    low, high = (0, given[0]) if len(given) == 1 else given
    return _write(input, generator, lambda stream, shape: _integers("random_", stream, low, high, shape, kind))


def exponential_(input: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with exponential numbers of rate ``lambd``: density lambd * exp(-lambd * x)."""
    if input.dtype.kind != "f":
        raise RuntimeError(
            "Exponential distribution is a continuous probability distribution. dtype must be a floating point but you "
            f"specified {input.dtype}"
        )
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    return _write(input, generator, lambda stream, shape: stream.standard_exponential(shape) / lambd)


def geometric_(input: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with the number of trials up to the first success, of probability ``p`` each: 1, 2, ..."""
    if input.dtype.kind == "b":
        raise NotImplementedError("geometric_() is not implemented for bool")
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return _write(input, generator, lambda stream, shape: stream.geometric(p, shape))


def log_normal_(input: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with the exponentials of normal numbers of the given mean and standard deviation."""
    _only_floating("log_normal_", input.dtype)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    return _write(input, generator, lambda stream, shape: np.exp(stream.standard_normal(shape) * std + mean))


def cauchy_(input: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with Cauchy numbers of the given median and half width."""
    if input.dtype.kind != "f":
        raise RuntimeError(
            "Cauchy distribution is a continuous probability distribution. dtype must be a floating point but you "
            f"specified {input.dtype}"
        )
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    return _write(input, generator, lambda stream, shape: stream.standard_cauchy(shape) * sigma + median)
