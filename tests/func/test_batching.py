"""Every row of the operation table inside vmap: the same as one sample after the other, and so are its derivatives."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.autograd import Tensor
from distgrad.autograd.primitive import PRIMITIVES
from distgrad.func import batched, grad, jvp, vjp, vmap
from distgrad.func.rules import ONE_BY_ONE, RULES, common, layers


def table() -> Any:
    path = Path(__file__).parent.parent / "ops" / "test_table.py"
    if "distgrad_table_tests" not in sys.modules:
        specification = importlib.util.spec_from_file_location("distgrad_table_tests", path)
        assert specification is not None and specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules["distgrad_table_tests"] = module
        specification.loader.exec_module(module)
    return sys.modules["distgrad_table_tests"]


TABLE = table()
SAMPLES = 3

# Rows that refuse some or all of their calls inside vmap: what they say.
SHAPES_DEPEND = "looks at the values"
REFUSED: dict[str, str] = {
    # the shape of the result depends on the values
    "unique": SHAPES_DEPEND,
    "unique_consecutive": SHAPES_DEPEND,
    "nonzero": SHAPES_DEPEND,
    "argwhere": SHAPES_DEPEND,
    "where": SHAPES_DEPEND,  # of a condition alone
    "masked_select": "boolean mask",
    "index_put": "boolean mask",
    "repeat_interleave": SHAPES_DEPEND,
    "one_hot": "explicit positive num_classes",
    # the result is Python's bool
    "allclose": SHAPES_DEPEND,
    "equal": SHAPES_DEPEND,
    "is_nonzero": SHAPES_DEPEND,
    # memory that all samples share would be changed
    "batch_norm": "the running statistics",
    "instance_norm": "that all samples share",
    "copy_": "that all samples share",
    "setitem": "that all samples share|boolean mask",
    "embedding": SHAPES_DEPEND,  # max_norm rescales the table in place
    "view of a dtype": "stride",  # as outside of vmap
}


@pytest.fixture(autouse=True)
def nothing_else_is_computed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def noted(primitive: Any, size: int, values: Any, flags: Any, keywords: Any) -> Any:
        by_frequency = primitive.name == "Embedding" and keywords["by_frequency"]
        assert primitive.name in ONE_BY_ONE or by_frequency, f"{primitive.name} is a loop"
        return common.looped(primitive, size, values, flags, keywords)

    monkeypatch.setattr(batched, "looped", noted)
    monkeypatch.setattr(layers, "looped", noted)


class Calls:
    """Calls of an op with the tensors of a table's sample, of which there are several versions.

    Floating-point tensors that are differentiated differ from version to version; others are the same.
    """

    def __init__(self, op: Any, sample: Any) -> None:
        self.op, self.sample = op, sample
        self.floats: list[int] = []  # the numbers of the tensors that are differentiated
        self.count = 0

        def note(array: Any, differentiable: bool) -> Any:
            if differentiable:
                self.floats.append(self.count)
            self.count += 1
            return array

        TABLE.prepared(sample, note)

    def version(self, number: int) -> list[Tensor]:
        tensors: list[Tensor] = []

        def make(array: Any, differentiable: bool) -> Any:
            tensors.append(Tensor(array * (1 - number / 64) if differentiable else array.copy()))
            return array

        TABLE.prepared(self.sample, make)
        return tensors

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The results that are tensors."""
        rest = iter(tensors)
        args, kwargs = TABLE.prepared(self.sample, lambda array, differentiable: next(rest))
        return tuple(out for out in TABLE.as_list(self.op.op(*args, **kwargs)) if isinstance(out, Tensor))

    def of_floats(self, version: Sequence[Tensor]) -> Callable[..., tuple[Tensor, ...]]:
        """The floating-point results as a function of the floating-point tensors alone."""

        def function(*floats: Tensor) -> tuple[Tensor, ...]:
            given = dict(zip(self.floats, floats, strict=True))
            outs = self(*(given.get(number, x.clone()) for number, x in enumerate(version)))
            return tuple(out for out in outs if out.dtype.kind == "f")

        return function


def refuses(op: Any, error: Exception) -> bool:
    """Whether this row is known to refuse, in these words."""
    return isinstance(error, RuntimeError) and re.search(REFUSED.get(op.label, "^$"), str(error)) is not None


def assert_alike(one: Tensor, many: Tensor, sample: Any, tolerance: float = 1e-10) -> None:
    assert many.dtype == one.dtype, sample
    assert tuple(many.shape) == tuple(one.shape), sample
    np.testing.assert_allclose(
        many.detach().numpy(), one.detach().numpy(), rtol=tolerance, atol=tolerance / 10, err_msg=repr(sample)
    )


def compare(op: Any, calls: Calls, batched: Sequence[int], in_dim: int = 0) -> None:
    """With vmap over the tensors of these numbers, against one call after the other."""
    versions = [calls.version(number) for number in range(SAMPLES)]
    mapped = [
        dg.stack([version[number] for version in versions], in_dim) if number in batched else versions[0][number]
        for number in range(calls.count)
    ]
    dg.manual_seed(0)
    in_dims = tuple(in_dim if number in batched else None for number in range(calls.count))
    try:
        together = vmap(calls, in_dims=in_dims, randomness="same")(*mapped)
    except Exception as error:
        if refuses(op, error):
            return
        error.add_note(f"{calls.sample}, batched: {batched}")
        raise
    for number in range(SAMPLES):
        dg.manual_seed(0)
        alone = calls(*(version if k in batched else versions[0][k] for k, version in enumerate(versions[number])))
        assert len(alone) == len(together)
        for one, many in zip(alone, together, strict=True):
            assert_alike(one, many[number], calls.sample)


def calls_of(op: Any, count: int | None = None) -> list[Calls]:
    found = [Calls(op, sample) for sample in TABLE.samples(op)[:count]]
    return [calls for calls in found if calls.count]


every_row = pytest.mark.parametrize("op", TABLE.ROWS, ids=TABLE.IDS)
every_differentiable_row = pytest.mark.parametrize(
    "op",
    [r for r in TABLE.ROWS if r.differentiable],
    ids=[i for r, i in zip(TABLE.ROWS, TABLE.IDS, strict=True) if r.differentiable],
)
pytestmark = pytest.mark.filterwarnings("ignore")


@every_row
def test_all_tensors_differ(op: Any) -> None:
    for calls in calls_of(op):
        compare(op, calls, calls.floats or range(calls.count))


@every_row
def test_one_tensor_differs(op: Any) -> None:
    for calls in calls_of(op, 6):
        for number in range(calls.count):
            # where as_strided finds elements depends on where the samples lie
            compare(op, calls, [number], in_dim=0 if "as_strided" in op.label else -1)


@every_row
def test_maps_in_maps(op: Any) -> None:
    for calls in calls_of(op, 2):
        if not calls.floats:
            continue
        version = calls.version(0)
        wide = [
            dg.stack([dg.stack([x * (1 - (2 * i + j) / 64) for j in range(2)]) for i in range(2)])
            if number in calls.floats
            else x
            for number, x in enumerate(version)
        ]
        in_dims = tuple(0 if number in calls.floats else None for number in range(calls.count))
        dg.manual_seed(0)
        try:
            together = vmap(vmap(calls, in_dims=in_dims, randomness="same"), in_dims=in_dims, randomness="same")(*wide)
        except RuntimeError as error:
            if refuses(op, error):
                continue
            raise
        for i in range(2):
            for j in range(2):
                dg.manual_seed(0)
                alone = calls(*(x[i, j].clone() if k in calls.floats else x for k, x in enumerate(wide)))
                for one, many in zip(alone, together, strict=True):
                    assert_alike(one, many[i, j], calls.sample)


def scalar_of(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    def scalar(*floats: Tensor) -> Tensor:
        total: Tensor = sum((out * out).sum() for out in function(*floats))  # type: ignore[assignment]
        return total

    return scalar


def differentiated(op: Any, count: int) -> list[tuple[Calls, Any]]:
    """Calls that have a derivative, as functions of the floating-point tensors."""
    found = []
    for calls in calls_of(op, count):
        function = calls.of_floats(calls.version(0))
        if calls.floats and function(*[calls.version(0)[k] for k in calls.floats]):
            found.append((calls, function))
    return found


@every_differentiable_row
def test_gradients_of_each_sample(op: Any) -> None:
    """With grad inside vmap: derivatives go through the same rules."""
    for calls, function in differentiated(op, 3):
        scalar = scalar_of(function)
        each = [[calls.version(number)[k] for k in calls.floats] for number in range(SAMPLES)]
        stacked = [dg.stack(list(group)) for group in zip(*each, strict=True)]
        numbers = tuple(range(len(stacked)))
        dg.manual_seed(0)
        try:
            together = vmap(grad(scalar, argnums=numbers), randomness="same")(*stacked)
        except RuntimeError as error:
            if refuses(op, error):
                continue
            raise
        for number, floats in enumerate(each):
            dg.manual_seed(0)
            for one, many in zip(grad(scalar, argnums=numbers)(*floats), together, strict=True):
                assert_alike(one, many[number], calls.sample, 1e-8)


@every_differentiable_row
def test_gradients_of_what_samples_share(op: Any) -> None:
    """Ordinary autograd around vmap, with one tensor that differs and others that do not."""
    for calls, function in differentiated(op, 3):
        scalar = scalar_of(function)
        for mapped in range(len(calls.floats)):
            each = [[calls.version(number)[k] for k in calls.floats] for number in range(SAMPLES)]
            leaves = [
                (dg.stack([floats[k] for floats in each]) if k == mapped else each[0][k]).requires_grad_()
                for k in range(len(calls.floats))
            ]
            in_dims = tuple(0 if k == mapped else None for k in range(len(leaves)))
            dg.manual_seed(0)
            try:
                total = vmap(scalar, in_dims=in_dims, randomness="same")(*leaves).sum()
            except RuntimeError as error:
                if refuses(op, error):
                    continue
                raise
            if not total.requires_grad:
                continue
            found = dg.autograd.grad(total, leaves, materialize_grads=True)
            loop = 0.0
            for number in range(SAMPLES):
                dg.manual_seed(0)
                loop = loop + scalar(*(x[number].clone() if k == mapped else x for k, x in enumerate(leaves)))
            expected = dg.autograd.grad(loop, leaves, materialize_grads=True)  # type: ignore[arg-type]
            for one, many in zip(expected, found, strict=True):
                assert one is not None and many is not None
                assert_alike(one, many, calls.sample, 1e-8)


@every_differentiable_row
def test_many_vectors_at_once(op: Any) -> None:
    """With vmap over the cotangents of vector-Jacobian products and the tangents of Jacobian-vector products."""
    for calls, function in differentiated(op, 2):
        floats = tuple(calls.version(0)[k] for k in calls.floats)
        dg.manual_seed(0)
        outputs, pullback = vjp(function, *floats)
        rng = np.random.default_rng(0)

        def drawn(tensors: Sequence[Tensor], rng: np.random.Generator = rng) -> list[Tensor]:
            return [Tensor(rng.uniform(0.5, 1, (SAMPLES, *x.shape)).astype(x.dtype)) for x in tensors]

        cotangents = drawn(outputs)
        together = vmap(lambda *vectors, pullback=pullback: pullback(vectors))(*cotangents)
        for number in range(SAMPLES):
            alone = pullback(tuple(vector[number] for vector in cotangents))
            for one, many in zip(alone, together, strict=True):
                assert_alike(one, many[number], calls.sample, 1e-8)
        tangents = drawn(floats)

        def forward(*vectors: Tensor, function: Any = function, floats: Any = floats) -> Any:
            dg.manual_seed(0)
            return jvp(function, floats, vectors)[1]

        together = vmap(forward, randomness="same")(*tangents)
        for number in range(SAMPLES):
            alone = forward(*(vector[number] for vector in tangents))
            for one, many in zip(alone, together, strict=True):
                assert_alike(one, many[number], calls.sample, 1e-8)


# The rules themselves -------------------------------------------------------------------------------------------------


def test_every_rule_is_of_a_primitive() -> None:
    assert [name for name in (*RULES, *ONE_BY_ONE) if name not in PRIMITIVES] == []


def test_every_primitive_has_a_rule_or_a_reason_for_none() -> None:
    assert [name for name in PRIMITIVES if (name in RULES) == (name in ONE_BY_ONE)] == []


@pytest.mark.parametrize("label", REFUSED)
def test_refusals_happen(label: str) -> None:
    refused = 0
    for op in [op for op in TABLE.ROWS if op.label == label]:
        for calls in calls_of(op):
            for mapped in [*([k] for k in range(calls.count)), list(range(calls.count))]:
                stacked = [dg.stack([x] * 2, -1) if k in mapped else x for k, x in enumerate(calls.version(0))]
                in_dims = tuple(-1 if k in mapped else None for k in range(calls.count))
                try:
                    vmap(calls, in_dims=in_dims, randomness="same")(*stacked)
                except RuntimeError as error:
                    assert refuses(op, error)
                    refused += 1
    assert refused
