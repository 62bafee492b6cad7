"""What a row of the op table says. The files beside this one list the rows; ``test_table.py`` tests each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Sample:
    """The arguments of one call. float64 arrays, also in lists, become float32 or float64 tensors that are
    differentiated; integer and bool arrays become tensors; everything else is passed as it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # What NumPy draws without a shape is a scalar, meant here as a 0-d array.
        self.args = tuple(np.asarray(x) if isinstance(x, np.generic) else x for x in args)
        self.kwargs = kwargs

    def __repr__(self) -> str:
        def shown(value: Any) -> str:
            if isinstance(value, Constant):
                return f"Constant({shown(value.array)})"
            if isinstance(value, np.ndarray):
                return f"{value.dtype}{list(value.shape)}"
            return f"[{', '.join(map(shown, value))}]" if isinstance(value, (list, tuple)) else repr(value)

        return ", ".join([*map(shown, self.args), *(f"{key}={shown(value)}" for key, value in self.kwargs.items())])


@dataclass(frozen=True)
class Constant:
    """A floating-point array that is a tensor but not differentiated, such as running statistics."""

    array: Array
    changes: bool = False  # the op may write into it


class Wrong(Sample):
    """Arguments, as of ``Sample``, that must be refused with this exception and message."""

    def __init__(self, error: type[Exception], match: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.error = error
        self.match = match


Samples = Callable[[np.random.Generator], Iterator[Sample]]


@dataclass(frozen=True)
class Op:
    """One row.

    Attributes:
        op: the public function.
        reference: the same function of NumPy arrays, written independently of it.
        samples: inputs; among them a 0-d and an empty tensor, unless ``lacks`` says why there is none.
        errors: inputs that are refused.
        covers: the primitives that calls of the samples and their first and second derivatives have to reach.
        name: what a user types; the function's own name unless given.
        torch: its public name in ``torch`` or ``torch.nn.functional``, the same unless given; or a function of the
            module and the arguments; None where PyTorch has no such function.
        differentiable: the result carries gradients.
        dtypes: how the result's dtype follows from the operands', a key of ``PROMOTIONS``; or why it does not apply.
        broadcasts: the first two arguments are broadcast against each other.
        tolerance: relative and absolute, in float64 and in float32, against the reference and PyTorch.
        lacks: "0-d", "empty" or "layouts" (inputs that are not contiguous), and why there is none.
    """

    op: Callable[..., Any]
    reference: Callable[..., Any]
    samples: Samples
    errors: tuple[Wrong, ...] = ()
    covers: tuple[str, ...] = ()
    name: str = ""
    torch: str | Callable[..., Any] | None = ""
    differentiable: bool = True
    dtypes: str = "same"
    broadcasts: bool = False
    tolerance: tuple[float, float] = (1e-12, 2e-5)
    lacks: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return self.name or self.op.__name__


@dataclass(frozen=True)
class Exempt:
    """A public function without a row of its own, and the reason."""

    op: Any
    reason: str


DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")

# PyTorch's answers for two tensors with dimensions, row by column in the order of DTYPES (B: bool, u: uint8, 1, 2, 4
# and 8: integers of so many bytes, h, f and d: floats).
_TABLE = """
B u 1 2 4 8 h f d
u u 2 2 4 8 h f d
1 2 1 2 4 8 h f d
2 2 2 2 4 8 h f d
4 4 4 4 4 8 h f d
8 8 8 8 8 8 h f d
h h h h h h h f d
f f f f f f f f d
d d d d d d d d d
"""
_LETTERS = dict(zip("Bu1248hfd", DTYPES, strict=True))
COMMON = {
    (a, b): _LETTERS[letter]
    for a, line in zip(DTYPES, _TABLE.split("\n")[1:-1], strict=True)
    for b, letter in zip(DTYPES, line.split(), strict=True)
}


def _floating(dtype: str) -> str:
    return dtype if dtype.startswith("float") else "float32"


# For one operand: from its dtype to the result's. None: such an operand is refused.
PROMOTIONS: dict[str, Callable[[str], str | None]] = {
    "same": lambda d: d,
    "floating": _floating,
    "floating, not bool": lambda d: None if d == "bool" else _floating(d),
    "to bool": lambda d: "bool",
    "as with an int": lambda d: "int64" if d == "bool" else d,
    "to int64": lambda d: "int64",
    "sum": lambda d: d if d.startswith("float") else "int64",
    "only floating": lambda d: d if d.startswith("float") else None,
    "not bool": lambda d: None if d == "bool" else d,
    "signed": lambda d: None if d in ("bool", "uint8") else d,
    "not floating": lambda d: None if d.startswith("float") else d,
}
# For two operands: from their common dtype to the result's.
PAIRS: dict[str, Callable[[str], str | None]] = {
    "common": lambda d: d,
    "common, not bool": lambda d: None if d == "bool" else d,
    "common, floating": _floating,
    "common, only floating": lambda d: d if d.startswith("float") else None,
    "common, not floating": lambda d: None if d.startswith("float") else d,
    "common, only integers": lambda d: None if d == "bool" or d.startswith("float") else d,
    "common to bool": lambda d: "bool",
    "common to float64": lambda d: "float64",
}
