"""Writes the statements of the random programs of ``fuzz.py``, from the templates in ``fuzz_templates.py``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from fuzz_templates import KINDS, TEMPLATES


class Writer:
    """Draws statements for a program whose present state is ``names``: PyTorch's tensors by name."""

    def __init__(self, rng: np.random.Generator, names: dict[str, Any]) -> None:
        self.rng = rng
        self.names = names
        self.replaced = False  # there is a hook that replaces a gradient
        self.subject = ""
        self.text: dict[str, str] = {}  # what has been filled into the present template

    def statement(self) -> str:
        """One statement, of a kind drawn by weight."""
        kinds = list(KINDS)
        weights = np.array([KINDS[kind][0] for kind in kinds], float)
        while True:
            self.template = str(
                self.pick(TEMPLATES[kinds[int(self.rng.choice(len(kinds), p=weights / weights.sum()))]])
            )
            text = self.filled(self.template)
            self.replaced = self.replaced or "g * 2" in self.template
            if text:
                return text

    def filled(self, template: str) -> str | None:
        """``template`` with tensors, numbers and positions in it; None where no tensor is fit for it."""
        template, _, condition = template.partition(" ?")
        names = [n for n, x in self.names.items() if not condition or getattr(self, f"is_{condition}")(x)]
        if not names:
            return None
        self.subject = str(self.pick(names[-4:] if self.chance(0.6) else names))
        self.text = {"x": self.subject}
        return re.sub(r"\{(\w+)\}", lambda found: self.fill(found[1]), template)

    def is_full(self, x: Any) -> bool:
        """There are elements."""
        return bool(x.numel())

    def fill(self, what: str) -> str:
        """The text for ``{what}``."""
        if what not in self.text:
            self.text[what] = str(getattr(self, f"fill_{what}")(self.names[self.subject]))
        return self.text[what]

    def pick(self, options: Any) -> Any:
        options = list(options)
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def variable(self, condition: Callable[[Any], bool] = lambda x: True) -> str:
        """One of those that satisfy ``condition``, or, where none does, any."""
        return str(self.pick([name for name, x in self.names.items() if condition(x)] or self.names))

    def is_float(self, x: Any) -> bool:
        """It may require a gradient."""
        return bool(x.dtype.is_floating_point)

    def is_signed(self, x: Any) -> bool:
        """A formula of PyTorch's may take the negative."""
        return str(x.dtype) != "torch.uint8"

    def is_own(self, x: Any) -> bool:
        """No view: of a hook on a view that is then changed in place PyTorch forgets what goes to the old values."""
        return not x._is_view()

    def is_unchanged(self, x: Any) -> bool:
        """It has no views, which PyTorch finds a history once the base requires a gradient, or not."""
        others = [y.data_ptr() for y in self.names.values() if y is not x]
        return bool(x._version == 0 and x.data_ptr() not in others)

    # Tensors and numbers ---------------------------------------------------------------------------------------------

    def fill_any(self, x: Any) -> str:
        return self.variable()

    def fill_leaf(self, x: Any) -> str:
        # what a hook that replaces the gradient does to one that is asked for, PyTorch decides one way or the other
        inner = self.chance(0.4) and not self.replaced

        def fits(y: Any) -> bool:
            with contextlib.suppress(RuntimeError):  # of a stale view
                return bool(y.requires_grad and (inner or y.is_leaf))
            return False

        return self.variable(fits)

    def fill_scalar(self, x: Any) -> str:
        return self.variable(lambda y: y.ndim == 0)

    def fill_z(self, x: Any) -> str:
        def fits(y: Any) -> bool:
            with contextlib.suppress(ValueError):
                return np.broadcast_shapes(tuple(x.shape), tuple(y.shape)) is not None
            return False

        return self.variable(fits if self.chance(0.95) else lambda y: True)

    fill_w = fill_z

    def fill_y(self, x: Any) -> str:
        return self.fill_n(x) if self.chance(0.2) else self.fill_z(x)

    def fill_same(self, x: Any) -> str:
        others = [n for n, y in self.names.items() if y.shape == x.shape and y.dtype == x.dtype and y is not x]
        return str(self.pick(others)) if others and self.chance(0.7) else f"({self.subject} * 2)"

    def fill_partner(self, x: Any) -> str:
        return self.variable(
            lambda y: y.ndim and x.ndim and x.shape[-1] == y.shape[-2 if y.ndim > 1 else 0] and y.dtype == x.dtype
        )

    def fill_f(self, x: Any) -> str:
        return self.subject if x.dtype.is_floating_point else f"{self.subject}.double()"

    def fill_n(self, x: Any) -> str:
        # what a negative number is for uint8 is PyTorch's accident: it wraps in a comparison and in clamp
        negative = [] if str(x.dtype) == "torch.uint8" else ["-1", "-0.25"]
        return str(self.pick(["2", "0.5", "3.0", "1", "True", "0", *negative]))

    def fill_p(self, x: Any) -> str:
        return str(self.pick(["1", "2", "3", "0.5", "float('inf')"]))

    def fill_order_of_norm(self, x: Any) -> str:
        return str(self.pick(["'fro'", "'nuc'", "1", "-1", "2", "-2", "float('inf')"]))

    def fill_k(self, x: Any) -> str:
        return str(self.pick([1, 1, 2, 3]))

    def fill_K(self, x: Any) -> str:
        return str(self.chance(0.5))

    def fill_r(self, x: Any) -> str:
        return str(self.pick(["mean", "sum", "none"]))

    def fill_bag(self, x: Any) -> str:
        return str(self.pick(["sum", "mean", "max"]))

    def fill_kind(self, x: Any) -> str:
        return str(self.pick(["double", "float", "long", "bool", "half", "int"]))

    def fill_dtype(self, x: Any) -> str:
        return str(self.pick(["float32", "float64", "int32", "int64", "float16"]))

    # Shapes ----------------------------------------------------------------------------------------------------------

    def fill_shape(self, x: Any) -> str:
        return str(list(x.shape))

    def fill_last(self, x: Any) -> str:
        return str(x.shape[-1] if x.ndim else 1)

    def fill_d(self, x: Any) -> str:
        spread = max(x.ndim, 1)
        return str(int(self.rng.integers(-spread, spread)) if self.chance(0.97) else spread)

    fill_e = fill_d

    def fill_D(self, x: Any) -> str:
        if x.ndim == 0 or self.chance(0.5):
            return self.fill_d(x)
        chosen = self.rng.permutation(x.ndim)[: int(self.rng.integers(1, x.ndim + 1))]
        return str(tuple(int(d) - (x.ndim if self.chance(0.3) else 0) for d in chosen))

    def fill_order(self, x: Any) -> str:
        return ", ".join(map(str, self.rng.permutation(x.ndim).tolist())) or "()"

    def fill_wider(self, x: Any) -> str:
        return str(self.pick(["2, ", "", "1, "])) + (", ".join("-1" for _ in x.shape) or "3")

    def fill_repeats(self, x: Any) -> str:
        return ", ".join(["2"] + ["1"] * max(x.ndim - 1, 0))

    def fill_start(self, x: Any) -> str:
        return str(int(self.rng.integers(0, self.length(x) + 1)))

    def fill_length(self, x: Any) -> str:
        return str(int(self.rng.integers(0, max(self.length(x) - int(self.fill("start")), 0) + 1)))

    def fill_sizes(self, x: Any) -> str:
        sizes = [list(x.shape), [-1], [*x.shape, 1], [x.numel()], [1, -1]]
        if x.ndim >= 2:
            sizes.append([x.shape[0] * x.shape[1], *x.shape[2:]])
        return str(self.pick(sizes))

    def fill_offset(self, x: Any) -> str:
        return str(self.pick([0, 1, -1]))

    # Positions -------------------------------------------------------------------------------------------------------

    def length(self, x: Any, d: int | None = None) -> int:
        """Of the dimension that ``{d}`` names."""
        d = int(self.fill("d")) if d is None else d
        return int(x.shape[d]) if x.ndim and -x.ndim <= d < x.ndim else 1

    def fill_at(self, x: Any) -> str:
        size = self.length(x)
        return f"t.tensor({[int(k) for k in self.rng.integers(0, max(size, 1), int(self.rng.integers(1, 4)))]})"

    def fill_at0(self, x: Any) -> str:
        size = self.length(x, 0)
        return f"t.tensor({[int(k) for k in self.rng.integers(-size, max(size, 1), 3)]})"

    def fill_once(self, x: Any) -> str:
        size = self.length(x)
        return f"t.tensor({self.rng.permutation(size)[: int(self.rng.integers(1, size + 2))].tolist()}).long()"

    def fill_once0(self, x: Any) -> str:
        size = self.length(x, 0)
        return f"t.tensor({self.rng.permutation(size)[: int(self.rng.integers(1, size + 2))].tolist()}).long()"

    def fill_wide(self, x: Any) -> str:
        values = self.rng.integers(0, max(self.length(x), 1), tuple(x.shape))
        return f"t.tensor({values.tolist()}).long().reshape({list(x.shape)})"

    def fill_wide_once(self, x: Any) -> str:
        d = int(self.fill("d"))
        values = np.zeros(tuple(x.shape), np.int64)
        if -x.ndim <= d < x.ndim:
            counted = np.arange(x.shape[d]).reshape([-1 if k == d % x.ndim else 1 for k in range(x.ndim)])
            values = self.rng.permuted(np.broadcast_to(counted, tuple(x.shape)), axis=d)
        return f"t.tensor({values.tolist()}).long().reshape({list(x.shape)})"

    def fill_places(self, x: Any) -> str:
        return f"t.tensor({self.rng.integers(0, max(x.numel(), 1), 2).tolist()})"

    def fill_mask(self, x: Any) -> str:
        if x.numel() and self.chance(0.4):
            return f"t.tensor({(self.rng.random(tuple(x.shape)) > 0.4).tolist()})"
        return f"({self.subject} > {self.pick(['0', '0.3'])})"

    def fill_i(self, x: Any) -> str:
        """What stands in brackets."""
        return self.index(x, repeated=True)

    def fill_j(self, x: Any) -> str:
        """The same for an assignment: no position twice, since which value is kept is nobody's promise."""
        return self.index(x, repeated=False)

    def index(self, x: Any, repeated: bool) -> str:
        parts = []
        for size in x.shape[: int(self.rng.integers(0, x.ndim + 1))]:
            kind = self.pick(["int", "slice", "slice", "list", "tensor", "colon", "mask", "none", "bool"])
            if kind == "int" and size:
                parts.append(str(int(self.rng.integers(-size, size))))
            elif kind == "slice":
                start, stop = sorted(int(k) for k in self.rng.integers(0, size + 2, 2))
                parts.append(f"{start}:{stop}" + str(self.pick(["", "", ":2"])))
            elif kind == "list" and size:
                parts.append(str([int(k) for k in self.rng.integers(-size, size, 2 if repeated else 1)]))
            elif kind == "tensor" and size:
                shape = self.pick([(2,), (2, 1), (1,)] if repeated else [(1,), (1, 1)])
                parts.append(f"t.tensor({self.rng.integers(-size, size, shape).tolist()})")
            elif kind == "mask" and size:
                parts.append(f"t.tensor({(self.rng.random(size) > 0.4).tolist()})")
            elif kind == "none":
                parts += ["None", ":"]
            elif kind == "bool" and self.chance(0.1):
                parts += [str(self.chance(0.5)), ":"]
            else:
                parts.append(":")
        if self.chance(0.2):
            parts.insert(int(self.rng.integers(0, len(parts) + 1)), "...")
        return ", ".join(parts) or "..."
