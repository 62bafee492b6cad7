"""How a tensor reads when printed: character for character as PyTorch 2.13 prints it.

The rules were taken from PyTorch's documentation of ``torch.set_printoptions`` and from what it prints; the parity
tests hold the two together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .tensor import Tensor

# Dtypes that a literal would get anyway, and that are therefore not printed.
_INFERRED_DTYPES = frozenset({"bool", "int64", "float32"})


@dataclass(frozen=True, slots=True)
class _Options:
    precision: int = 4  # digits after the point
    threshold: float = 1000  # more elements than this are summarised
    edgeitems: int = 3  # elements kept at either end of a summarised dimension
    linewidth: int = 80  # characters
    sci_mode: bool | None = None  # None: decided by the values


_PROFILES = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=math.inf),
}

_options = _PROFILES["default"]


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: Literal["default", "short", "full"] | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Sets how tensors are printed from now on, with the meaning of ``torch.set_printoptions``.

    What is left out keeps its value, except ``sci_mode``, which every call sets, as in PyTorch.

    Args:
        precision: digits after the decimal point (initially 4).
        threshold: a tensor with more elements than this is summarised (initially 1000).
        edgeitems: elements shown at either end of a summarised dimension (initially 3); with 0 the shape is added.
        linewidth: characters a line may have before it is broken (initially 80).
        profile: the values to start from, before the other arguments: ``"default"``, ``"short"`` (2 digits, 2 edge
            items) or ``"full"`` (never summarise).
        sci_mode: always (True) or never (False) print floats in scientific notation, or None to let the values decide:
            it is used when they span more than a factor of 1000 or exceed 1e8, and, unless all are whole numbers, when
            one is below 1e-4. Zeros, infinities and NaNs have no say.

    Raises:
        ValueError: an unknown profile, a threshold that is no number, or another number that is negative or fractional.
    """
    global _options
    if profile is not None and profile not in _PROFILES:
        raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
    given: dict[str, Any] = {"precision": precision, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None and (not isinstance(value, Integral) or int(value) < 0):
            raise ValueError(f"set_printoptions: {name} must be a whole number of at least 0, got {value!r}")
    if threshold is not None and not isinstance(threshold, Real):
        raise ValueError(f"set_printoptions: threshold must be a number, got {threshold!r}")
    given["threshold"] = threshold
    start = _options if profile is None else _PROFILES[profile]
    chosen = {name: value for name, value in given.items() if value is not None}
    _options = replace(start, **chosen, sci_mode=sci_mode)


def format_tensor(tensor: Tensor) -> str:
    """The text of ``repr(tensor)``: values, then shape, dtype and history as far as the values do not tell them.

    Floats, integers and booleans of every width print as in PyTorch; elements of any other dtype print as ``str`` does.
    """
    kind = type(tensor)
    if kind.__name__ == "Parameter":
        return f"Parameter containing:\n{_call(tensor, 'tensor')}"
    if any(base.__name__ == "Parameter" for base in kind.__mro__):
        return f"Parameter containing:\nParameter({_call(tensor, kind.__name__)})"
    return _call(tensor, "tensor" if kind.__name__ == "Tensor" else kind.__name__)


def _call(tensor: Tensor, constructor: str) -> str:
    """``constructor(values, suffix, ...)``, where a suffix that would cross the line width starts a new line."""
    options = _options
    opening = f"{constructor}("
    text = opening + _values(tensor._data, len(opening), options)
    # PyTorch counts the line of the values two longer than it is, and the lines below it exactly.
    column = len(text) - (text.rfind("\n") + 1) + 2
    for suffix in _suffixes(tensor, options):
        if column + 2 + len(suffix) > options.linewidth:
            text += ",\n" + " " * len(opening) + suffix
            column = len(opening) + len(suffix)
        else:
            text += ", " + suffix
            column += 2 + len(suffix)
    return text + ")"


def _suffixes(tensor: Tensor, options: _Options) -> list[str]:
    data = tensor._data
    suffixes = []
    # The brackets of an empty tensor show one dimension only, and without edge items they show none.
    if (data.ndim != 1) if data.size == 0 else (options.edgeitems == 0):
        suffixes.append(f"size={data.shape}")
    if data.dtype.name not in _INFERRED_DTYPES or (data.size == 0 and data.dtype.name != "float32"):
        suffixes.append(f"dtype=torch.{data.dtype.name}")
    if tensor._node is not None:
        suffixes.append(f"grad_fn=<{tensor._node.name()}>")
    elif tensor._requires_grad:
        suffixes.append("requires_grad=True")
    return suffixes


def _values(data: NDArray[Any], indent: int, options: _Options) -> str:
    """The elements in nested brackets; ``indent`` is the column at which the first bracket stands."""
    if data.size == 0:
        return "[]"
    edge = options.edgeitems
    summarised = data.size > options.threshold
    cut = [summarised and length > 2 * edge for length in data.shape]  # the dimensions that lose their middle
    if any(cut):
        if edge == 0:
            return "[...]"
        # Only what is shown decides the width and the notation, so the rest of a huge tensor is never touched.
        data = data[
            np.ix_(
                *(
                    np.r_[:edge, length - edge : length] if shortened else np.arange(length)
                    for length, shortened in zip(data.shape, cut, strict=True)
                )
            )
        ]
    write, width = _element_writer(data, options)

    def layout(rows: Any, dim: int, indent: int) -> str:
        if dim == data.ndim:
            return write(rows).rjust(width)
        last = dim == data.ndim - 1
        items = [layout(row, dim + 1, indent + 1) for row in rows]
        if cut[dim]:
            items.insert(edge, " ..." if last else "...")
        new_line = "\n" * max(1, data.ndim - 1 - dim) + " " * (indent + 1)
        # A matrix row takes as many elements as fit; what is above rows gets one item a line.
        per_line = max(1, (options.linewidth - indent) // (width + 2)) if last else 1
        lines = [", ".join(items[start : start + per_line]) for start in range(0, len(items), per_line)]
        return f"[{f',{new_line}'.join(lines)}]"

    return layout(data.tolist(), 0, indent)


def _element_writer(data: NDArray[Any], options: _Options) -> tuple[Callable[[Any], str], int]:
    """What turns an element into text, and the width that all of them are padded to."""
    if data.dtype.kind != "f":
        return str, max(len(str(value)) for value in data.ravel().tolist())
    # float64, because the limits are compared in it: float32's 1e-4 lies below the limit of 1e-4.
    shown = data.ravel().astype(np.float64)
    shown = shown[np.isfinite(shown) & (shown != 0)]
    if shown.size == 0:
        return _write_whole, 1
    magnitudes = np.abs(shown)
    least, greatest = float(magnitudes.min()), float(magnitudes.max())
    whole = bool((shown == np.trunc(shown)).all())
    scientific = options.sci_mode
    if scientific is None:
        scientific = greatest / least > 1000 or greatest > 1e8 or (least < 1e-4 and not whole)
    spec = f".{options.precision}{'e' if scientific else 'f'}"
    write = _write_whole if whole and not scientific else lambda value: format(value, spec)
    return write, max(len(write(value)) for value in shown.tolist())


def _write_whole(value: float) -> str:
    return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"
