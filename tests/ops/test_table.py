"""The one op table: every row of ``db/<family>.py`` through every check, and a check that no op is without a row."""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import sys
import types
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor, gradcheck, gradgradcheck
from distgrad.autograd.primitive import PRIMITIVES, OperationNode, Primitive

DB = Path(__file__).parent / "db"


def load(folder: Path, name: str) -> dict[str, types.ModuleType]:
    """The files of ``folder`` as modules of a package ``name`` (tests are no package of their own)."""
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    return {file.stem: importlib.import_module(f"{name}.{file.stem}") for file in sorted(folder.glob("*.py"))}


FAMILIES = load(DB, "distgrad_op_table")
row = FAMILIES.pop("row")
ROWS: list[Any] = [r for family in FAMILIES.values() for r in family.ROWS]
IDS = [f"{stem}.{r.label}" for stem, family in FAMILIES.items() for r in family.ROWS]

every_row = pytest.mark.parametrize("op", ROWS, ids=IDS)


def rows_that(condition: Callable[[Any], bool]) -> Any:
    chosen = [(r, i) for r, i in zip(ROWS, IDS, strict=True) if condition(r)]
    return pytest.mark.parametrize("op", [r for r, _ in chosen], ids=[i for _, i in chosen])


differentiable_row = rows_that(lambda r: r.differentiable)
both_precisions = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


# From a row to calls -------------------------------------------------------------------------------------------------


def samples(op: Any) -> list[Any]:
    return list(op.samples(np.random.default_rng(zlib.crc32(op.label.encode()))))


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """``function`` of everything in nested lists, tuples and dictionaries."""
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(mapped(function, item) for item in value)
    if isinstance(value, dict):
        return {key: mapped(function, item) for key, item in value.items()}
    return function(value)


def prepared(sample: Any, make: Callable[[Any, bool], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``sample`` with ``make(array, differentiable)`` for each array."""

    def one(value: Any) -> Any:
        if isinstance(value, row.Constant):
            return make(value.array, False)
        return make(value, value.dtype == np.float64) if isinstance(value, np.ndarray) else value

    return mapped(one, sample.args), mapped(one, sample.kwargs)


def in_dtype(array: Any, dtype: Any) -> Any:
    return array.astype(dtype if array.dtype == np.float64 else array.dtype)


class Call:
    """One call of an op with tensors made from a sample."""

    def __init__(
        self,
        op: Any,
        sample: Any,
        dtype: Any = np.float64,
        layout: Callable[[Any], Any] = lambda array: array,
        wanted: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self.tensors: list[Tensor] = []
        self.leaves: list[Tensor] = []

        def make(array: Any, differentiable: bool) -> Tensor:
            tensor = Tensor(layout(in_dtype(array, dtype)))
            self.tensors.append(tensor)
            if differentiable and op.differentiable:
                tensor.requires_grad = wanted(len(self.leaves))
                self.leaves.append(tensor)
            return tensor

        self.args, self.kwargs = prepared(sample, make)
        self.op = op

    def __call__(self, *unused: Any) -> Any:
        return self.op.op(*self.args, **self.kwargs)

    def outputs(self) -> list[Any]:
        return as_list(self())


def as_list(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


def differentiable(outputs: list[Any]) -> list[Tensor]:
    return [out for out in outputs if isinstance(out, Tensor) and out.requires_grad]


def vectors(outputs: list[Tensor], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.standard_normal(out.shape), out.dtype) for out in outputs]


def gradients(call: Call, outputs: list[Any], **options: Any) -> list[Any]:
    outs = differentiable(outputs)
    leaves = [leaf for leaf in call.leaves if leaf.requires_grad]
    if not outs or not leaves:
        return []
    return list(dg.autograd.grad(outs, leaves, [Tensor(v) for v in vectors(outs)], allow_unused=True, **options))


def assert_close(actual: Any, expected: Any, tolerance: float) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def array_of(tensor: Tensor) -> Any:
    return tensor.detach().numpy()


# Values --------------------------------------------------------------------------------------------------------------


@both_precisions
@every_row
def test_forward(op: Any, dtype: Any) -> None:
    tolerance = op.tolerance[dtype is np.float32]
    for sample in samples(op):
        call = Call(op, sample, dtype)
        reference_args: list[Any] = []

        def plain(array: Any, _: bool, made: list[Any] = reference_args) -> Any:
            made.append(in_dtype(in_dtype(array, dtype), np.float64))
            return made[-1]

        args, kwargs = prepared(sample, plain)
        expected, actual = as_list(op.reference(*args, **kwargs)), call.outputs()
        asked = [v for v in (*sample.args, *sample.kwargs.values()) if isinstance(v, np.dtype)]
        given = [t.dtype for t in call.tensors if t.is_floating_point()]
        assert len(actual) == len(expected), sample
        for out, value in zip(actual, expected, strict=True):
            if isinstance(out, bool):
                assert out is value, sample
                continue
            value = np.asarray(value)
            if op.differentiable or value.dtype.kind == "f":
                kept = given[0] if given and value.dtype.kind == "f" else value.dtype
                kept = np.float64 if op.dtypes == "common to float64" else kept
                assert out.dtype == (asked[0] if asked else kept), sample
            else:
                assert out.dtype == value.dtype, sample
            assert_close(array_of(out), value, tolerance)
        for tensor, array in zip(call.tensors, reference_args, strict=True):  # what the op was allowed to write
            assert_close(array_of(tensor), array, tolerance)


def torch_value(value: Any, torch: Any) -> Any:
    if isinstance(value, np.dtype):
        return getattr(torch, value.name)
    return value


def torch_call(op: Any, sample: Any, dtype: Any, torch: Any) -> tuple[Any, list[Any]]:
    leaves: list[Any] = []

    def make(array: Any, differentiable: bool) -> Any:
        tensor = torch.from_numpy(np.array(in_dtype(array, dtype)))
        if differentiable and op.differentiable:
            leaves.append(tensor.requires_grad_())
        return tensor

    args, kwargs = prepared(sample, make)
    args, kwargs = mapped(lambda v: torch_value(v, torch), args), mapped(lambda v: torch_value(v, torch), kwargs)
    function = torch_function(op, torch)
    return function(*args, **kwargs), leaves


def torch_function(op: Any, torch: Any) -> Callable[..., Any]:
    if callable(op.torch):
        return lambda *args, **kwargs: op.torch(torch, *args, **kwargs)
    name = op.torch or op.label
    return getattr(torch, name) if hasattr(torch, name) and not op.torch else getattr(torch.nn.functional, name)  # type: ignore[no-any-return]


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@both_precisions
@every_row
def test_same_as_torch(op: Any, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    tolerance = max(op.tolerance[dtype is np.float32], 1e-11)
    for sample in samples(op):
        call = Call(op, sample, dtype)
        outputs, (theirs, torch_leaves) = call.outputs(), torch_call(op, sample, dtype, torch)
        for out, value in zip(outputs, list(theirs) if isinstance(theirs, (tuple, list)) else [theirs], strict=True):
            if isinstance(value, bool):
                assert out is value, sample
                continue
            assert str(value.dtype) == f"torch.{out.dtype}", sample
            assert_close(array_of(out), value.detach().numpy(), tolerance)
            assert out.requires_grad == value.requires_grad, sample
        results = [v for v in (theirs if isinstance(theirs, (tuple, list)) else [theirs]) if not isinstance(v, bool)]
        results = [v for v in results if v.requires_grad]
        if not results:
            continue
        seeds = [torch.from_numpy(v) for v in vectors(differentiable(outputs))]
        expected = torch.autograd.grad(results, torch_leaves, seeds, allow_unused=True)
        for leaf, mine, other in zip(call.leaves, gradients(call, outputs), expected, strict=True):
            assert (mine is None) == (other is None), sample
            if mine is not None:
                assert mine.dtype == leaf.dtype and not mine.requires_grad
                assert_close(array_of(mine), other.detach().numpy(), tolerance * 10)


# Derivatives ---------------------------------------------------------------------------------------------------------


def to_check(op: Any) -> Iterator[tuple[Any, Call]]:
    """The samples with a gradient; finite differences need float64 all the way."""
    for sample in samples(op):
        call = Call(op, sample)
        outs = differentiable(call.outputs())
        if outs and all(out.dtype == np.float64 for out in outs):
            yield sample, call


@differentiable_row
def test_first_derivatives(op: Any) -> None:
    for sample, call in to_check(op):
        assert gradcheck(call, call.leaves), sample


@differentiable_row
def test_second_derivatives(op: Any) -> None:
    for sample, call in to_check(op):
        assert gradgradcheck(call, call.leaves), sample


@both_precisions
@differentiable_row
def test_recorded_backward_gives_the_same_gradients(op: Any, dtype: Any) -> None:
    for sample in samples(op):
        plain, recorded = Call(op, sample, dtype), Call(op, sample, dtype)
        first = gradients(plain, plain.outputs())
        for leaf, a, b in zip(
            plain.leaves, first, gradients(recorded, recorded.outputs(), create_graph=True), strict=False
        ):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.shape == b.shape == leaf.shape and a.dtype == b.dtype == leaf.dtype, sample
                assert_close(array_of(a), array_of(b), max(op.tolerance[dtype is np.float32], 1e-11) * 100)


@differentiable_row
def test_only_requested_gradients_are_computed(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: Counter[tuple[str, str]] = Counter()

    def counting(name: str, operand: str, vjp: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            computed[name, operand] += 1
            return vjp(*args)

        return counted

    for primitive in PRIMITIVES.values():
        for operand, vjp in list(primitive.vjps.items()):
            monkeypatch.setitem(primitive.vjps, operand, counting(primitive.name, operand, vjp))
    for sample in samples(op):
        for only in range(len(Call(op, sample).leaves)):
            call = Call(op, sample, wanted=lambda number, only=only: number == only)
            outs = differentiable(call.outputs())
            if not outs:
                continue
            requested: Counter[tuple[str, str]] = Counter()
            for node in nodes_behind(outs):
                if isinstance(node, OperationNode):
                    for position, edge in enumerate(node.edges):
                        if edge is not None:
                            operand = node.primitive.starred or node.primitive.operands[position]
                            requested[node.primitive.name, operand] += 1
            computed.clear()
            dg.autograd.backward(outs, [Tensor(v) for v in vectors(outs)])
            assert computed == requested, sample
            assert [leaf.grad is not None for leaf in call.leaves].count(True) <= 1
            assert all(leaf.grad is None for number, leaf in enumerate(call.leaves) if number != only), sample


def nodes_behind(outputs: list[Tensor]) -> Iterator[Any]:
    stack = [out.grad_fn for out in outputs]
    seen = set()
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack.extend(function for function, _ in node.next_functions)


@rows_that(lambda r: bool(r.covers))
def test_reaches_the_primitives_that_it_claims(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: set[str] = set()

    def noting(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def noted(*operands: Any, **keywords: Any) -> Any:
            reached.add(name)
            return forward(*operands, **keywords)

        return noted

    for primitive in PRIMITIVES.values():
        monkeypatch.setattr(primitive, "forward", noting(primitive.name, primitive.forward))
    for sample in samples(op):
        with dg.no_grad():
            Call(op, sample).outputs()
        call = Call(op, sample)
        outs = differentiable(call.outputs())
        if not outs:
            continue
        seeds = [Tensor(v, requires_grad=True) for v in vectors(outs)]
        first = dg.autograd.grad(outs, call.leaves, seeds, create_graph=True, allow_unused=True)
        second = differentiable([g for g in first if g is not None])
        if second:
            dg.autograd.backward(second, [Tensor(v) for v in vectors(second)], create_graph=True)
    assert set(op.covers) <= reached


# Shapes and memory ---------------------------------------------------------------------------------------------------

PAIRS_OF_SHAPES = [((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 3)), ((2, 3), ()), ((0, 3), (1, 3)), ((2, 1, 2), (3, 1))]


@rows_that(lambda r: r.broadcasts)
def test_broadcasting(op: Any) -> None:
    rng = np.random.default_rng(1)
    floats = "not floating" not in op.dtypes and "only integers" not in op.dtypes
    for a, b in PAIRS_OF_SHAPES:
        if floats:
            sample = row.Sample(rng.uniform(0.5, 2.0, a), rng.uniform(0.5, 2.0, b))
        else:
            sample = row.Sample(np.asarray(rng.integers(-9, 9, a)), np.asarray(rng.integers(-9, 9, b)))
        call = Call(op, sample)
        (out,) = call.outputs()
        assert tuple(out.shape) == np.broadcast_shapes(a, b)
        assert_close(array_of(out), op.reference(*sample.args), op.tolerance[0])
        if op.differentiable:
            assert gradcheck(call, call.leaves)
            assert gradgradcheck(call, call.leaves)


@every_row
def test_has_samples_with_no_dimension_and_with_no_element(op: Any) -> None:
    calls = [Call(op, sample) for sample in samples(op)]
    shapes = [t.shape for call in calls for t in call.tensors or call.outputs()]
    assert ("0-d" in op.lacks) != any(len(shape) == 0 for shape in shapes)
    assert ("empty" in op.lacks) != any(0 in shape for shape in shapes)


def strided(array: Any) -> Any:
    if not array.ndim:
        return array.copy()
    memory = np.full([2 * n for n in array.shape], 7, array.dtype)
    view = memory[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def reversed_in_memory(array: Any) -> Any:
    turn = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[turn])[turn].reshape(array.shape)


def read_only(array: Any) -> Any:
    array = array.copy()
    array.flags.writeable = False
    return array


LAYOUTS = {
    "transposed": lambda array: array.copy("F"),
    "strided": strided,
    "reversed": reversed_in_memory,
    "read-only": read_only,
}


def writes(sample: Any) -> bool:
    return any(isinstance(v, row.Constant) and v.changes for v in sample.args)


@pytest.mark.parametrize("layout", LAYOUTS)
@rows_that(lambda r: "layouts" not in r.lacks)
def test_memory_layout_does_not_matter(op: Any, layout: str) -> None:
    for sample in samples(op):
        if layout == "read-only" and writes(sample):
            continue
        plain, other = Call(op, sample), Call(op, sample, layout=LAYOUTS[layout])
        before = [t.detach().numpy().tobytes() for t in other.tensors]
        a, b = plain.outputs(), other.outputs()
        for x, y in zip(a, b, strict=True):
            if isinstance(x, Tensor):
                assert x.dtype == y.dtype
                assert_close(array_of(y), array_of(x), 1e-11)
            else:
                assert x == y
        for x, y in zip(gradients(plain, a), gradients(other, b), strict=True):
            assert (x is None) == (y is None)
            if x is not None:
                assert_close(array_of(y), array_of(x), 1e-9)
        if not writes(sample):
            assert before == [t.detach().numpy().tobytes() for t in other.tensors], "an input was changed"


@rows_that(lambda r: "layouts" not in r.lacks)
def test_expanded_memory(op: Any) -> None:
    """Inputs whose elements share memory, as expand() makes them, against copies of them."""

    def repeated(array: Any) -> Any:
        return np.broadcast_to(array[:1], array.shape) if array.ndim and array.size else array

    for sample in samples(op):
        if writes(sample):
            continue
        copied, shared = Call(op, sample, layout=lambda x: repeated(x).copy()), Call(op, sample, layout=repeated)
        for x, y in zip(copied.outputs(), shared.outputs(), strict=True):
            if isinstance(x, Tensor):
                assert_close(array_of(y), array_of(x), 1e-9)
            else:
                assert x == y


# Dtypes --------------------------------------------------------------------------------------------------------------


def values_of(dtype: str, shape: tuple[int, ...] = (2, 2)) -> Any:
    return np.ones(shape, dtype)


@rows_that(lambda r: r.dtypes in row.PROMOTIONS)
def test_dtype_of_the_result(op: Any) -> None:
    for dtype in row.DTYPES:
        expected = row.PROMOTIONS[op.dtypes](dtype)
        if expected is None:
            with pytest.raises(RuntimeError):
                op.op(Tensor(values_of(dtype)))
        else:
            out = as_list(op.op(Tensor(values_of(dtype))))[0]
            assert out.dtype == expected, dtype


SCALARS = {"bool": True, "int": 1, "float": 1.0}


def with_scalar(dtype: str, scalar: str) -> str:
    """A Python number widens a tensor only to a higher category."""
    if scalar == "float":
        return dtype if dtype.startswith("float") else "float32"
    return "int64" if scalar == "int" and dtype == "bool" else dtype


def category(dtype: str) -> int:
    return 0 if dtype == "bool" else 2 if dtype.startswith("float") else 1


def with_0d(dtype: str, zero_dimensional: str) -> str:
    """A tensor without dimensions likewise, then to its own dtype."""
    return zero_dimensional if category(zero_dimensional) > category(dtype) else dtype


def operand_pairs() -> Iterator[tuple[Any, Any, str]]:
    for a, b in itertools.product(row.DTYPES, repeat=2):
        yield values_of(a), values_of(b), row.COMMON[a, b]
        yield values_of(a), values_of(b, ()), with_0d(a, b)
        yield values_of(a, ()), values_of(b), with_0d(b, a)
        yield values_of(a, ()), values_of(b, ()), row.COMMON[a, b]
    for a, (name, scalar) in itertools.product(row.DTYPES, SCALARS.items()):
        for shape in ((2, 2), ()):
            yield values_of(a, shape), scalar, with_scalar(a, name)
            yield scalar, values_of(a, shape), with_scalar(a, name)


def tensor_or_number(value: Any) -> Any:
    return Tensor(value) if isinstance(value, np.ndarray) else value


# as in PyTorch, these take no numbers, a number only second, and no bool in either place
ONLY_TENSORS = (
    "atan2 fmax fmin gcd hypot lcm ldexp logaddexp logaddexp2 logical_and logical_or logical_xor maximum minimum "
    "nextafter"
).split()
TENSOR_FIRST = ("clamp_max", "clamp_min", "copysign")
NO_BOOLS = ("rsub", "sub")


def takes(op: Any, a: Any, b: Any) -> bool:
    if op.label in ONLY_TENSORS:
        return isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return op.label not in TENSOR_FIRST or isinstance(a, np.ndarray)


@rows_that(lambda r: r.dtypes in row.PAIRS)
def test_promotion(op: Any) -> None:
    for a, b, common in operand_pairs():
        if not takes(op, a, b):
            continue
        expected = row.PAIRS[op.dtypes](common)
        if expected is None or (op.label in NO_BOOLS and np.bool_ in (np.asarray(a).dtype, np.asarray(b).dtype)):
            with pytest.raises(RuntimeError):
                op.op(tensor_or_number(a), tensor_or_number(b))
        else:
            out = op.op(tensor_or_number(a), tensor_or_number(b))
            assert out.dtype == expected, (describe(a), describe(b))


def describe(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)


@pytest.mark.parity
def test_recorded_promotions_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for a, b, common in operand_pairs():
        theirs = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in (a, b)]
        expected = str(torch.result_type(*theirs)).removeprefix("torch.")
        assert common == expected == dg.result_type(*map(tensor_or_number, (a, b))), (describe(a), describe(b))


@pytest.mark.parity
@rows_that(lambda r: r.dtypes in row.PAIRS or r.dtypes in row.PROMOTIONS)
def test_dtypes_are_those_of_torch(op: Any) -> None:
    torch = pytest.importorskip("torch")
    function = torch_function(op, torch)
    cases = [(a, b) for a, b, _ in operand_pairs()] if op.dtypes in row.PAIRS else [(values_of(d),) for d in row.DTYPES]
    for case in cases:
        theirs = [torch.from_numpy(x) if isinstance(x, np.ndarray) else x for x in case]
        try:
            expected = function(*theirs)
        except (RuntimeError, TypeError, NotImplementedError):
            continue  # PyTorch lacks many a kernel; what must be refused is recorded in the rows
        expected = expected[0] if isinstance(expected, tuple) else expected
        out = as_list(op.op(*map(tensor_or_number, case)))[0]
        assert f"torch.{out.dtype}" == str(expected.dtype), list(map(describe, case))


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "wrong"),
    [(r, wrong) for r in ROWS for wrong in r.errors],
    ids=[f"{name}({wrong})" for name, r in zip(IDS, ROWS, strict=True) for wrong in r.errors],
)
def test_errors(op: Any, wrong: Any) -> None:
    args, kwargs = prepared(wrong, lambda array, _: Tensor(array.copy()))
    with pytest.raises(wrong.error, match=wrong.match) as caught:
        op.op(*args, **kwargs)
    assert type(caught.value) is wrong.error


@every_row
def test_has_errors(op: Any) -> None:
    assert op.errors


# Completeness --------------------------------------------------------------------------------------------------------


def public_functions(module: types.ModuleType) -> dict[str, Any]:
    """What a family offers: its own public functions and classes."""
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and not isinstance(value, Primitive)
        and getattr(value, "__module__", None) == module.__name__
    }


def unclaimed_functions(families: dict[str, Any]) -> list[str]:
    missing = []
    for stem, family in families.items():
        claimed = {inspect.unwrap(r.op) for r in family.ROWS} | {exempt.op for exempt in family.EXEMPT}
        missing += [f"{stem}.{name}" for name, value in public_functions(family.FAMILY).items() if value not in claimed]
    return missing


def unclaimed_primitives(families: dict[str, Any], primitives: dict[str, Any]) -> list[str]:
    claimed = {name for family in families.values() for r in family.ROWS for name in r.covers}
    return [name for name in primitives if name not in claimed]


def test_every_public_function_has_a_row() -> None:
    assert unclaimed_functions(FAMILIES) == []


def test_every_primitive_has_a_row() -> None:
    assert unclaimed_primitives(FAMILIES, PRIMITIVES) == []


def test_every_claimed_primitive_exists() -> None:
    assert {name for r in ROWS for name in r.covers} <= set(PRIMITIVES)


NOT_FAMILIES = {
    "absent": "what is not there; tests/test_api_table.py",
    "arguments": "checks what is no tensor; the errors in the rows reach all of it",
    "methods": "puts functions of the families on Tensor",
    "promotion": "tests/ops/test_promotion.py",
    "samples": "what operations do inside vmap; tests/func",
    "dims": "tests/ops/test_dims.py",
    "return_types": "tests/ops/test_dims.py",
}


def test_every_family_has_a_file() -> None:
    folder = Path(inspect.getfile(dg.autograd)).parent.parent / "ops"
    assert {file.stem for file in folder.glob("*.py")} - {"__init__"} - set(NOT_FAMILIES) == set(FAMILIES)


def test_labels_are_unique() -> None:
    assert len(set(IDS)) == len(IDS)


def test_a_missing_row_is_noticed() -> None:
    """The completeness tests can fail: take one row out, or define one more op."""
    family = FAMILIES["linalg"]
    without = types.SimpleNamespace(ROWS=family.ROWS[1:], EXEMPT=family.EXEMPT, FAMILY=family.FAMILY)
    assert unclaimed_functions({"linalg": without}) == ["linalg.matmul"]
    others = {stem: f for stem, f in FAMILIES.items() if stem != "convolution"}
    assert "Convolution" in unclaimed_primitives(others, PRIMITIVES)
    new = Primitive("New", np.abs, ("input",), {"input": lambda g: g})
    assert unclaimed_primitives(FAMILIES, {**PRIMITIVES, "New": new}) == ["New"]


def test_a_wrong_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks of derivatives can fail: with a VJP of exp that is off by a per cent."""
    monkeypatch.setitem(PRIMITIVES["Exp"].vjps, "input", lambda g, output: g * output * 1.01)
    op = next(r for r in ROWS if r.label == "exp")
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        test_first_derivatives(op)
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        test_second_derivatives(op)
