"""Random programs, run in PyTorch and here: values, shapes, dtypes, memory, gradients, and whether both raise.

A program is a list of Python statements over ``t`` (the module), ``F`` (its ``nn.functional``) and tensors ``v0``...
The generator draws one statement after the other, looking at what PyTorch has made of those before it. A difference is
reported as the shortest program that still shows it.

    python tests/parity/fuzz.py --programs 2000 --seed 0
"""

from __future__ import annotations

import argparse
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
    (), (1,), (3,), (4,), (2, 3), (3, 4), (1, 4), (3, 1), (3, 3), (4, 4), (2, 3, 4), (2, 1, 3), (2, 2, 3, 2), (0,), (0, 3),
]  # fmt: skip
DTYPES = ["float64"] * 12 + ["float32"] * 3 + ["int64"] * 3 + ["int32", "bool", "uint8", "float16"]

# What PyTorch refuses for want of a kernel, not by its meaning.
GAPS = ("not implemented for", "NotImplementedError", "not supported for", "not support", "INTERNAL ASSERT")

# Where the two differ on purpose, by what they raise (here, PyTorch; None: it runs), and why.
ACCEPTED: tuple[tuple[str | None, str | None, str], ...] = (
    (r"not implemented for|is not defined for|not supported", None, "PyTorch has a kernel for integers by accident"),
    (None, r"derivative for aten::\w+ is not implemented", "a gradient exists here that PyTorch has not"),
    (None, r"modified by an inplace operation", "PyTorch saves more than the gradients that are asked for need"),
    (None, r"freed|second time", "nothing was saved here, so that the graph can be walked again"),
    (None, r"(Negation|Subtraction), the `-` operator, (on|with) a bool", "a formula of PyTorch's subtracts masks"),
    (None, r"input tensor and the written-to tensor refer to a single", "a source that overlaps is copied first here"),
    (None, r"saved tensor that has been detached in-place", "detach_() leaves what has been saved as it was"),
    (None, r"INTERNAL ASSERT FAILED", "a bug of PyTorch's"),
    (r"more than one of its elements refers to a single", None, "PyTorch lets some operations through, deprecated"),
    (r"index -?\d+ is out of bounds for dimension \d+ with size 0", None, "PyTorch does not look at them then"),
)


def accepted(here: str | None, there: str | None) -> bool:
    """Whether that one raises and the other does not is a deliberate difference."""
    return any(
        all(bool(raised and re.search(pattern, raised)) if pattern else raised is None
            for pattern, raised in ((ours, here), (theirs, there)))
        for ours, theirs, _ in ACCEPTED
    )  # fmt: skip


# Running it ---------------------------------------------------------------------------------------------------------


def functions(t: Any) -> dict[str, Any]:
    """Operations of a user's own, and what makes any tensor fit for an operation that wants a certain shape."""

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
            x, y = ctx.saved_tensors
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
        flat = x.reshape(-1) if t.is_floating_point(x) else x.reshape(-1).double()
        flat = flat.repeat(count // max(len(flat), 1) + 1)[:count]
        return (flat + (t.arange(count).double() * 0.377).sin().to(flat.dtype)).reshape(shape)

    def apart(x: Any) -> Any:
        """No two elements alike: which of several equal ones an operation takes is nobody's promise."""
        return x.double() + (t.arange(x.numel()).double() * 0.0123456).reshape(x.shape)

    def solid(x: Any) -> Any:
        """A 3 x 3 matrix that is far from singular."""
        return spread(x, 3, 3).double().tanh() + t.tensor([4.0, 6.0, 9.0]).double().diag()

    def checkpoint(function: Any, *tensors: Any) -> Any:
        return module_of(t, "utils.checkpoint").checkpoint(function, *tensors, use_reentrant=False)

    return {name: value for name, value in locals().items() if name != "t"}


def module_of(t: Any, name: str) -> Any:
    """A module inside one of the two packages."""
    return importlib.import_module(f"{t.__name__}.{name}")


FUNCTIONS: dict[str, dict[str, Any]] = {}  # of each of the two packages


class World:
    """One of the two modules, with the tensors of a program."""

    def __init__(self, module: Any, leaves: list[tuple[Any, bool]]) -> None:
        self.module = module
        self.log: list[float] = []
        self.names: dict[str, Any] = {}
        for number, (array, requires_grad) in enumerate(leaves):
            tensor = module.from_numpy(np.array(array))
            self.names[f"v{number}"] = tensor.requires_grad_() if requires_grad else tensor
        self.leaves = dict(self.names)
        if module.__name__ not in FUNCTIONS:
            FUNCTIONS[module.__name__] = functions(module)
        self.fixed = {
            "t": module, "F": module.nn.functional, "log": self.log, **FUNCTIONS[module.__name__],
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

    def array(self, tensor: Any) -> Any:
        return np.asarray(tensor.detach().numpy())

    def memory(self) -> dict[str, Any]:
        return {name: self.array(x) for name, x in self.names.items()}


TOLERANCES = {"float64": 1e-9, "float32": 2e-4, "float16": 2e-2}


def _history_refused(x: Any) -> bool:
    """Asks for the history, which brings that of a stale view up to date, or is refused."""
    try:
        return x.grad_fn is NotImplemented
    except RuntimeError:
        return True


def coarsest(tensors: Iterable[Any]) -> float:
    """The tolerance of results that come from all of these."""
    return max((TOLERANCES.get(str(x.dtype).removeprefix("torch."), 0.0) for x in tensors), default=0.0)


def differs(mine: Any, theirs: Any, where: str, tolerance: float) -> str | None:
    """How two tensors differ, or None."""
    if (mine is None) != (theirs is None):
        return f"{where}: {'none' if mine is None else 'one'} here, {'none' if theirs is None else 'one'} in PyTorch"
    if mine is None:
        return None
    refused = [_history_refused(x) for x in (mine, theirs)]
    if any(refused):
        return None if all(refused) else f"{where}: its history is refused by one: {refused}"
    for what in ("shape", "dtype", "requires_grad", "is_leaf"):
        if str(mine.dtype).startswith(("int", "uint", "bool")) and what in ("requires_grad", "is_leaf"):
            continue  # a copy of a tensor with history into integers has one in PyTorch; it could carry no gradient
        a, b = getattr(mine, what), getattr(theirs, what)
        a, b = (
            (tuple(a), tuple(b)) if what == "shape" else (str(a).removeprefix("torch."), str(b).removeprefix("torch."))
        )
        if a != b:
            return f"{where}: {what} {a} here, {b} in PyTorch"
    a, b = np.asarray(mine.detach().numpy()), np.asarray(theirs.detach().numpy())
    with np.errstate(all="ignore"):
        if a.dtype.kind == "f":
            largest = float(np.nanmax(np.abs(np.where(np.isfinite(b), b, 0)), initial=0.0))
            same = np.allclose(
                a.astype(float), b.astype(float), rtol=tolerance, atol=tolerance * max(largest, 1e-3), equal_nan=True
            )
        else:
            same = bool(np.array_equal(a, b))
    return None if same else f"{where}: {a.tolist()!r} here, {b.tolist()!r} in PyTorch"


def tame(x: Any) -> bool:
    """Values that a program may go on with: not so large or so many that rounding decides what comes next."""
    values = np.asarray(x.detach().numpy())
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

    def difference(self, mine: Any, theirs: Any, counts: Counter[str] | None = None) -> str | None:
        """The first difference between two modules, or None."""
        ours, torch = World(mine, self.leaves), World(theirs, self.leaves)
        for statement in self.statements:
            raised, expected = ours.run(statement), torch.run(statement)
            if counts is not None:
                counts["raised" if expected else "ran"] += 1
            if (raised is None) != (expected is None):
                if accepted(raised, expected):
                    return None  # from here on they are two different programs
                return f"{statement}\n    here: {raised or 'runs'}\n    PyTorch: {expected or 'runs'}"
            target = re.match(r"!?(v\d+)", statement)
            if raised is None and target and target[1] in torch.names:
                found = differs(
                    ours.names[target[1]], torch.names[target[1]], statement, coarsest(torch.names.values())
                )
                if found:
                    return found
        for name in torch.names:
            found = differs(ours.names[name], torch.names[name], f"{name} in the end", coarsest(torch.names.values()))
            if found:
                return found
        found = self._memory(ours, torch)
        if found:
            return found
        raised, expected = ours.run(self.final), torch.run(self.final)
        if (raised is None) != (expected is None) and not accepted(raised, expected):
            return f"{self.final}\n    here: {raised or 'runs'}\n    PyTorch: {expected or 'runs'}"
        for name in (
            torch.names if raised is None and expected is None else ()
        ):  # how far a pass that fails has come is nobody's promise
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                a, b = ours.names[name].grad, torch.names[name].grad
            found = differs(a, b, f"{name}.grad", 100 * coarsest(torch.names.values()))
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
        if program.difference(mine, theirs, counts):
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
