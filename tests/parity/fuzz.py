"""Random programs, run in PyTorch and here: values, shapes, dtypes, memory, gradients, and whether both raise.

A program is a list of Python statements over ``t`` (the module), ``F`` (its ``nn.functional``) and tensors ``v0``...
The generator draws one statement after the other, looking at what PyTorch has made of those before it. A difference is
reported as the shortest program that still shows it.

    python tests/parity/fuzz.py --programs 2000 --seed 0
"""

from __future__ import annotations

import argparse
import functools
import importlib
import itertools
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from fuzz_statements import Writer

# What a program starts from, and what is accepted --------------------------------------------------------------------

SHAPES = [
    (), (1,), (3,), (4,), (2, 3), (3, 4), (1, 4), (3, 1), (3, 3), (4, 4), (2, 3, 4), (2, 1, 3), (2, 2, 3, 2), (0,),
    (0, 3),
]  # fmt: skip
DTYPES = ["float64"] * 12 + ["float32"] * 3 + ["int64"] * 3 + ["int32", "bool", "uint8", "float16"]

# What PyTorch refuses for want of a kernel, not by its meaning.
GAPS = ("not implemented for", "NotImplementedError", "not supported for", "not support", "INTERNAL ASSERT")

# Where the two differ on purpose, by what they raise (here, PyTorch; None: it runs), and why.
ACCEPTED: tuple[tuple[str | None, str | None, str], ...] = (
    (r"not implemented for|is not defined for|not supported", None, "PyTorch has a kernel for integers by accident"),
    (None, r"derivative for (aten::\w+|'.*') is not implemented", "a gradient exists here that PyTorch has not"),
    (None, r"modified by an inplace operation", "PyTorch saves more than the gradients that are asked for need"),
    (None, r"freed|second time", "nothing was saved here, so that the graph can be walked again"),
    (None, r"input tensor and the written-to tensor refer to a single", "a source that overlaps is copied first here"),
    (None, r"saved tensor that has been detached in-place", "detach_() leaves what has been saved as it was"),
    (None, r"INTERNAL ASSERT FAILED", "a bug of PyTorch's"),
    (r"Can't detach views in-place", None, "some results are views of intermediates here, which they are not there"),
    (None, r"Can't detach views in-place", "and the other way round"),
    (r"created in no_grad mode and its base|is a view and its base or", None, "a comparison asks for the history too"),
    (None, r"'NoneType' object has no attribute 'register_", "a gradient that is 0 has a history here"),
    (r"expected m1 and m2 to have the same dtype", None, "PyTorch mixes dtypes where there is nothing to multiply"),
    (
        r"(Contract|Matmul|Tanhshrink) saved its operand",
        None,
        "an operand is saved where PyTorch saves a copy or the result",
    ),
    (r"Div saved its operand 'other'", None, "a number over a tensor is a product with the reciprocal in PyTorch"),
    (r"\(AsStridedBackward0\)", None, "where elements lie counts as saved"),
    (r"derivative for unique is not", None, "as in PyTorch, but for views that were made without recording"),
    (r"result type int64 can't be cast to the desired output type bool", None, "PyTorch's cumsum_ takes bools"),
    (r"einsum\(\): expected scalar type", None, "PyTorch mixes dtypes where it happens to multiply elements"),
    (None, r"value cannot be converted to type .* without overflow", "a tensor's values wrap, as in any conversion"),
    (r"more than one of its elements refers to a single", None, "PyTorch lets some operations through, deprecated"),
    (r"index -?\d+ is out of bounds for dimension \d+ with size 0", None, "PyTorch does not look at them then"),
)


# The same of backward passes only: operations that PyTorch's formulas use refuse masks and mixed dtypes.
ACCEPTED_IN_PASSES = (
    (None, r"(Negation|Subtraction), the `-` operator, (on|with) a bool", "a formula subtracts masks"),
    (None, r"can't be cast to the desired|must have the same dtype", "a formula mixes dtypes"),
    (None, r"ZeroTensors are immutable", "a bug of PyTorch's"),
)


def accepted(here: str | None, there: str | None, statement: str) -> bool:
    """Whether that one raises and the other does not is a deliberate difference."""
    passes = ACCEPTED_IN_PASSES if "backward(" in statement or "grad(" in statement else ()
    return any(
        all(bool(raised and re.search(pattern, raised)) if pattern else raised is None
            for pattern, raised in ((ours, here), (theirs, there)))
        for ours, theirs, _ in (*ACCEPTED, *passes)
    )  # fmt: skip


# Running it ---------------------------------------------------------------------------------------------------------


@functools.cache
def functions(name: str, nudge: int = 0) -> dict[str, Any]:
    """Operations of a user's own, and what makes any tensor fit for an operation that wants a certain shape.

    Args:
        name: of the package.
        nudge: by how many rounding errors to change the constants in them.
    """
    t = importlib.import_module(name)
    step = 1 + nudge * 2e-16

    class Cube(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            (x,) = ctx.saved_tensors
            return 3 * x * x * g

    class Scaled(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, factor: float) -> Any:
            ctx.factor = factor
            out = (x * factor).exp()
            ctx.save_for_backward(out)
            return out

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0] * ctx.factor, None

    class Both(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any, y: Any) -> Any:
            ctx.save_for_backward(x, y)
            ctx.set_materialize_grads(False)
            larger = x > y
            ctx.mark_non_differentiable(larger)
            return x * 2, larger

        @staticmethod
        def backward(ctx: Any, g: Any, unused: Any) -> Any:
            y = ctx.saved_tensors[1]
            return None if g is None else g * 2, t.zeros_like(y) if ctx.needs_input_grad[1] else None

    class Twice(t.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    def quiet(call: Callable[[], Any]) -> Any:
        with t.no_grad():
            return call()

    def loud(call: Callable[[], Any]) -> Any:
        with t.enable_grad():
            return call()

    def numbers(gradients: Any) -> list[float]:
        return [float("nan") if g is None else float(g.double().sum()) for g in gradients]

    def spread(x: Any, *shape: int) -> Any:
        """The elements, repeated and shifted, in ``shape``."""
        count = int(np.prod(shape))
        flat = x.clone().reshape(-1) if t.is_floating_point(x) else x.reshape(-1).double()
        flat = flat.nan_to_num(0.5, 2.0, -2.0).repeat(count // max(len(flat), 1) + 1)[:count]
        return (flat + (t.arange(count).double() * 0.377 * step).sin().to(flat.dtype)).reshape(shape)

    def apart(x: Any) -> Any:
        """No two elements alike: which of several equal ones an operation takes is nobody's promise."""
        return x.double().nan_to_num(0.4, 1e6, -1e6) + (t.arange(x.numel()).double() * 0.0123456 * step).reshape(
            x.shape
        )

    def finite(x: Any) -> Any:
        """Only gradients that are finite go on from here: PyTorch takes some NaN for 0."""
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda g: g.nan_to_num(0.0, 0.0, 0.0))
        return y

    def solid(x: Any) -> Any:
        """A 3 x 3 matrix that is far from singular."""
        return spread(x, 3, 3).double().tanh() + t.tensor([4.0, 6.0, 9.0]).double().diag()

    def checkpoint(function: Any, *tensors: Any) -> Any:
        module = importlib.import_module(f"{name}.utils.checkpoint")
        return module.checkpoint(function, *tensors, use_reentrant=False)

    return {key: value for key, value in locals().items() if callable(value)}


class World:
    """One of the two modules, with the tensors of a program."""

    def __init__(self, module: Any, leaves: list[tuple[Any, bool]], nudge: int = 0) -> None:
        self.module = module
        self.log: list[float] = []
        self.names: dict[str, Any] = {}
        for number, (array, requires_grad) in enumerate(leaves):
            tensor = module.from_numpy(np.array(array))
            self.names[f"v{number}"] = tensor.requires_grad_() if requires_grad else tensor
        self.leaves = dict(self.names)
        self.fixed = {
            "t": module, "F": module.nn.functional, "log": self.log, **functions(module.__name__, nudge),
            "running_mean": module.zeros(3).double(), "running_var": module.ones(3).double(),
        }  # fmt: skip

    def run(self, statement: str) -> str | None:
        """Runs a statement; what it raised, or None."""
        space = {**self.fixed, **self.names}
        try:
            exec(compile(statement, "<program>", "exec"), space)
        except Exception as error:
            return f"{type(error).__name__}: {error}".split("\n")[0]
        for name in [name for name in space if re.fullmatch(r"v\d+", name)]:
            if not hasattr(space[name], "requires_grad"):
                return "TypeError: the result is no tensor"
            self.names[name] = space[name]
        return None

    def memory(self) -> dict[str, Any]:
        return {name: array_of(x) for name, x in self.names.items()}


def array_of(tensor: Any) -> Any:
    """The values, in the tensor's own memory."""
    tensor = tensor.detach()
    if getattr(tensor, "_is_zerotensor", bool)():  # as PyTorch makes some gradients: it has no memory
        tensor = tensor.clone()
    return np.asarray(tensor.numpy())


TOLERANCES = {"float64": 1e-9, "float32": 2e-4, "float16": 2e-2}


def _follows(statement: str, before: dict[str, Any], ours: World, theirs: Any, target: str) -> bool:
    """Whether PyTorch gives our values for ``target`` from our values before the statement.

    If so, they differ by what comes from rounding: each is right.
    """
    again = World(theirs, [])
    again.log, again.fixed = ours.log, {**again.fixed, "log": []}
    again.names = {name: theirs.from_numpy(array.copy()) for name, array in before.items()}
    if again.run(statement) or target not in again.names:
        return False
    mine, other = ours.names[target].detach(), again.names[target].detach()
    return differs(mine, other, "", coarsest(again.names.values())) is None


def _same_layout(ours: World, torch: World) -> bool:
    """Whether all tensors have the same strides, which the results of some operations have not: nobody's promise."""
    return all(
        n < 2 or a == b
        for name, x in torch.names.items()
        for n, a, b in zip(x.shape, ours.names[name].stride(), x.stride(), strict=True)
    )


def _history_refused(x: Any) -> bool:
    """Asks for the history, which brings that of a stale view up to date, or is refused."""
    try:
        return x.grad_fn is NotImplemented
    except RuntimeError:
        return True


def coarsest(tensors: Iterable[Any]) -> float:
    """The tolerance of results that come from all of these."""
    return max((TOLERANCES.get(str(x.dtype).removeprefix("torch."), 0.0) for x in tensors), default=0.0)


def differs(mine: Any, theirs: Any, where: str, tolerance: float, masked: bool = False) -> str | None:
    """How two tensors differ, or None.

    ``masked``: where values are not all finite, only those are compared that are finite in both: what comes
    of 0 times inf depends on whether a formula multiplies with a mask or chooses by it.
    """
    if (mine is None) != (theirs is None):
        return f"{where}: {'none' if mine is None else 'one'} here, {'none' if theirs is None else 'one'} in PyTorch"
    if mine is None:
        return None
    refused = [_history_refused(x) for x in (mine, theirs)]
    if any(refused):
        return None if all(refused) else f"{where}: its history is refused by one: {refused}"
    for what in ("shape", "dtype", "requires_grad", "is_leaf"):
        if "grad(" in where and what in ("requires_grad", "is_leaf"):
            continue  # whether a gradient that is 0, or constant, has a history is nobody's promise
        if str(mine.dtype).startswith(("int", "uint", "bool")) and what in ("requires_grad", "is_leaf"):
            continue  # a copy of a tensor with history into integers has one in PyTorch; it could carry no gradient
        a, b = getattr(mine, what), getattr(theirs, what)
        a, b = (
            (tuple(a), tuple(b)) if what == "shape" else (str(a).removeprefix("torch."), str(b).removeprefix("torch."))
        )
        if a != b:
            return f"{where}: {what} {a} here, {b} in PyTorch"
    a, b = array_of(mine), array_of(theirs)
    with np.errstate(all="ignore"):
        if a.dtype.kind == "f":
            if masked and not (np.isfinite(a).all() and np.isfinite(b).all()):
                a, b = (np.where(np.isfinite(a) & np.isfinite(b), x, 0) for x in (a, b))
            largest = float(np.nanmax(np.abs(np.where(np.isfinite(b), b, 0)), initial=0.0))
            same = np.allclose(
                a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance * max(largest, 1e-3), equal_nan=True
            )
        else:
            same = bool(np.array_equal(a, b))
    return None if same else f"{where}: {a.tolist()!r} here, {b.tolist()!r} in PyTorch"


def tame(x: Any) -> bool:
    """Values that a program may go on with: not so large or so many that rounding decides what comes next."""
    values = array_of(x)
    if values.size > 400 or values.ndim > 6:
        return False
    if values.dtype.kind == "f" and values.size:
        finite = values[np.isfinite(values)].astype(float)
        return bool(finite.size == 0 or np.abs(finite).max() < 1e4)
    return True


class Program:
    """Leaves and statements."""

    def __init__(self, leaves: list[tuple[Any, bool]], statements: list[str], final: str) -> None:
        self.leaves = leaves
        self.statements = statements
        self.final = final

    def __str__(self) -> str:
        lines = []
        for k, (a, r) in enumerate(self.leaves):
            order = "" if a.flags.c_contiguous else ".T.contiguous().T"
            lines.append(f"v{k} = t.tensor({a.tolist()}, dtype=t.{a.dtype}){order}{'.requires_grad_()' if r else ''}")
        return "\n".join([*lines, *self.statements, self.final])

    def decided_by_rounding(self, theirs: Any) -> bool:
        """Whether PyTorch itself gives something else where the leaves change by a rounding error.

        Integral values stay: where they are alike, or 0, both packages have to do the same.
        """
        rng = np.random.default_rng(0)
        for nudge in range(1, 5):
            leaves = []
            for array, requires_grad in self.leaves:
                other = array
                if array.dtype.kind == "f":
                    step = rng.uniform(-1, 1, array.shape) * np.finfo(array.dtype).eps * 4
                    other = np.where(array == np.round(array), array, array * (1 + step)).astype(array.dtype)
                    other = np.asarray(other, order="C" if array.flags.c_contiguous else "F")
                leaves.append((other, requires_grad))
            if Program(leaves, self.statements, self.final).difference(theirs, theirs, leaves=self.leaves, nudge=nudge):
                return True
        return False

    def difference(
        self, mine: Any, theirs: Any, counts: Counter[str] | None = None, leaves: list[tuple[Any, bool]] | None = None,
        nudge: int = 0,
    ) -> str | None:  # fmt: skip
        """The first difference between two modules, or None; ``leaves`` where the second's are others."""
        ours, torch = World(mine, self.leaves, nudge), World(theirs, self.leaves if leaves is None else leaves)
        for statement in self.statements:
            before = {name: array.copy() for name, array in ours.memory().items()}
            raised, expected = ours.run(statement), torch.run(statement)
            if counts is not None:
                counts["raised" if expected else "ran"] += 1
            if (raised is None) != (expected is None):
                if accepted(raised, expected, statement) or (
                    re.search("view size is not compatible", raised or expected or "") and not _same_layout(ours, torch)
                ):
                    return None  # from here on they are two different programs
                return f"{statement}\n    here: {raised or 'runs'}\n    PyTorch: {expected or 'runs'}"
            target = re.match(r"!?(v\d+)", statement)
            if raised is None and target and target[1] in torch.names:
                found = differs(
                    ours.names[target[1]], torch.names[target[1]], statement, coarsest(torch.names.values())
                )
                if found:
                    return None if _follows(statement, before, ours, theirs, target[1]) else found
        for name in torch.names:
            a_gradient = any(statement.startswith(f"{name} = t.autograd") for statement in self.statements)
            where = f"{name} = grad(...)" if a_gradient else name
            found = differs(ours.names[name], torch.names[name], f"{where} in the end", coarsest(torch.names.values()))
            if found:
                return found if _same_layout(ours, torch) else None  # a view there may be a copy here
        found = self._memory(ours, torch)
        if found:
            return found
        raised, expected = ours.run(self.final), torch.run(self.final)
        if (raised is None) != (expected is None) and not accepted(raised, expected, self.final):
            return f"{self.final}\n    here: {raised or 'runs'}\n    PyTorch: {expected or 'runs'}"
        if raised or expected:
            return None  # how far a pass that fails has come is nobody's promise
        for name in torch.names:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                a, b = ours.names[name].grad, torch.names[name].grad
            found = differs(a, b, f"{name}.grad", 100 * coarsest(torch.names.values()), masked=True)
            if found:
                return found
            if counts is not None and b is not None:
                counts["gradients"] += 1
        rounding = max(10 * coarsest(torch.names.values()), 1e-6)
        if len(ours.log) != len(torch.log) or not np.allclose(ours.log, torch.log, rounding, rounding, equal_nan=True):
            return f"the hooks saw {ours.log} here, {torch.log} in PyTorch"
        return None

    @staticmethod
    def _memory(ours: World, torch: World) -> str | None:
        if not _same_layout(ours, torch):
            return None
        mine, theirs = ours.memory(), torch.memory()
        for a, b in itertools.combinations(theirs, 2):
            here, there = np.shares_memory(mine[a], mine[b]), np.shares_memory(theirs[a], theirs[b])
            if here != there:
                return f"{a} and {b} share memory {'here, not in PyTorch' if here else 'in PyTorch, not here'}"
        return None


def generate(seed: int, theirs: Any, ran: Counter[str] | None = None) -> Program:
    """The program of a seed; it looks at PyTorch's results only. Counts in ``ran`` the templates that ran."""
    rng = np.random.default_rng(seed)
    leaves = []
    for _ in range(int(rng.integers(2, 5))):
        shape, dtype = SHAPES[int(rng.integers(len(SHAPES)))], DTYPES[int(rng.integers(len(DTYPES)))]
        values = (
            np.asarray(rng.uniform(-1.5, 1.5, shape))
            if dtype.startswith("f")
            else np.asarray(rng.integers(0, 4, shape))
        )
        if dtype.startswith("f") and rng.random() < 0.2:
            values = np.round(values) + 0.0  # ties and zeros
        array = np.asarray(values, dtype, order="F" if rng.random() < 0.15 else "C")
        leaves.append((array, bool(dtype.startswith("f") and rng.random() < 0.75)))
    world = World(theirs, leaves)
    writer = Writer(rng, world.names)
    statements: list[str] = []
    for _ in range(int(rng.integers(4, 18))):
        text = writer.statement()
        fresh = f"v{len(world.names)}"
        statement = text[1:] if text.startswith("!") else f"{fresh} = {text}"
        before = dict(world.names)
        values = {name: array.copy() for name, array in world.memory().items()}
        raised = world.run(statement)
        if raised and any(not np.array_equal(array, values[name]) for name, array in world.memory().items()):
            break  # what an operation has written before it fails is nobody's promise
        statements.append(statement)
        if raised and any(word in raised for word in GAPS):
            statements.pop()
            continue
        if not raised and ran is not None:
            ran[writer.template] += 1
        changed = [name for name in world.names if name not in before]
        if raised is None and any(not tame(x) for x in world.names.values()):
            if changed and all(tame(before[name]) for name in before):
                for name in changed:
                    del world.names[name]
                statements.pop()
                continue
            statements.pop()
            break
        writer.names = world.names
    floats = [n for n, x in world.names.items() if x.dtype.is_floating_point and x.numel()]
    total = (
        " + ".join(f"(({n}.double() * {0.5 + k / 7:.3f}).sum())" for k, n in enumerate(floats)) or "v0.double().sum()"
    )
    return Program(leaves, statements, f"({total}).backward()")


def shortest(program: Program, mine: Any, theirs: Any) -> Program:
    """The program without the statements that the difference does not need."""
    statements = list(program.statements)
    position = len(statements) - 1
    while position >= 0:
        rest = statements[:position] + statements[position + 1 :]
        candidate = Program(program.leaves, rest, program.final)
        found = candidate.difference(mine, theirs)
        if found and "NameError" not in found:
            statements = rest
        position -= 1
    program = Program(program.leaves, statements, program.final)
    terms = re.findall(r"\(\(v\d+[^+]*?\.sum\(\)\)", program.final)
    for term in terms:
        rest = [other for other in terms if other != term]
        if not rest:
            break
        candidate = Program(program.leaves, statements, f"({' + '.join(rest)}).backward()")
        if candidate.difference(mine, theirs):
            program, terms = candidate, rest
    return program


def differences(
    seeds: Iterator[int] | range, mine: Any, theirs: Any, counts: Counter[str]
) -> Iterator[tuple[int, Program, str]]:
    """Of each program that differs: its seed, its shortest form and the difference."""
    for seed in seeds:
        program = generate(seed, theirs)
        counts["programs"] += 1
        if program.difference(mine, theirs, counts) and not program.decided_by_rounding(theirs):
            small = shortest(program, mine, theirs)
            yield seed, small, small.difference(mine, theirs) or "(gone when shortened)"


def main() -> int:
    """Runs programs and prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--most", type=int, default=20, help="stop after so many differences")
    options = parser.parse_args()
    import torch

    import distgrad

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    found = 0
    for seed, program, difference in differences(
        range(options.seed, options.seed + options.programs), distgrad, torch, counts
    ):
        found += 1
        print(f"---- seed {seed}\n{program}\n==> {difference}\n", flush=True)
        if found >= options.most:
            break
    print(f"{counts['programs']} programs, {counts['ran']} statements ran, {counts['raised']} raised in PyTorch, "
          f"{counts['gradients']} gradients compared: {found} differences")  # fmt: skip
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
