from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from distgrad.ops import creation

from .row import Exempt, Op, Sample, Samples, Wrong

F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)
I32, I64, U8 = np.dtype(np.int32), np.dtype(np.int64), np.dtype(np.uint8)
WITHOUT = "makes tensors of a dtype that is asked for or inferred, as its samples show"


def calls(*cases: Sample) -> Samples:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        yield from cases

    return samples


def filled(value: float, of: Any = F32) -> Callable[..., Any]:
    def reference(*args: Any, size: Any = None, dtype: Any = of, device: Any = None) -> Any:
        size = args if size is None else size
        size = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        return np.array([value] * int(np.prod(size)), dtype).reshape(size)

    return reference


def in_its_dtype(reference: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *args, dtype=None, **kwargs: reference(*args, dtype=dtype or x.dtype, **kwargs)


SIZES = calls(
    Sample(2, 3),
    Sample((2, 3)),
    Sample(()),
    Sample(0, 3),
    Sample([2]),
    Sample(size=(2, 1)),
    Sample(3, dtype=I64),
    Sample(2, dtype=F64, device="cpu"),
)
LIKE = calls(
    Sample(np.ones((2, 3))), Sample(np.ones(())), Sample(np.ones((0, 2), np.int32)), Sample(np.ones(2), dtype=I64)
)
X, NUMBER, NOTHING = np.ones(2, np.int32), np.array(1, np.int32), np.ones((0, 2), np.int32)


def of_one_value(name: str) -> tuple[Wrong, ...]:
    return (
        Wrong(RuntimeError, "negative dimension -1", -1),
        Wrong(RuntimeError, "there is no device 'cuda': distgrad computes on the cpu", 2, device="cuda"),
        Wrong(RuntimeError, "only Tensors of floating point dtype", 2, dtype=I64, requires_grad=True),
        Wrong(TypeError, rf"{name}\(\) missing 1 required positional arguments: \"size\""),
        Wrong(TypeError, "multiple values for argument 'size'", 2, size=(2,)),
        Wrong(TypeError, "found element of type float at pos 0", 2.0),
        Wrong(TypeError, "found element of type bool at pos 0", True),
        Wrong(TypeError, "found element of type list at pos 1", 2, [3]),
    )


def plain(op: Any, reference: Any, samples: Samples, *errors: Wrong, **more: Any) -> Op:
    return Op(op, reference, samples, errors, (), differentiable=False, dtypes=WITHOUT, **more)


def method(name: str) -> Callable[..., Any]:
    return lambda torch, x, *args, **kwargs: getattr(x, name)(*args, **kwargs)


def inferred(data: Any, dtype: Any = None, device: Any = None, copy: Any = None) -> Any:
    """Python floats make float32 and integers int64; arrays keep their dtype."""
    array = np.array(data, dtype)
    kept = dtype is not None or isinstance(data, (np.ndarray, np.generic)) or array.dtype.kind != "f"
    return array if kept else array.astype(np.float32)


def full(size: Any, value: Any, dtype: Any = None) -> Any:
    return np.array([value] * int(np.prod(size)), dtype or inferred(value).dtype).reshape(size)


DATA = calls(
    Sample(3),
    Sample(2.5),
    Sample(True),
    Sample([1.0, 2.0]),
    Sample([[1, 2], [3, 4]]),
    Sample([]),
    Sample([[], []]),
    Sample([1, 2], dtype=F64),
    Sample([True, False]),
    Sample([1, 2.5]),
    Sample([True, 2]),
    Sample((1, 2)),
    Sample(range(3)),
    Sample(-1, dtype=I32),
    Sample([1.7, -1.7], dtype=I64),
    Sample([0.5, 0.0], dtype=np.dtype(bool)),
    Sample(1.5, device="cpu"),
)
UNKNOWN = (
    Wrong(ValueError, "not of one length at every level", [[1, 2], [3]]),
    Wrong(TypeError, "invalid data type 'str'", "abc"),
    Wrong(RuntimeError, "Could not infer dtype of NoneType", [None]),
    Wrong(RuntimeError, "Could not infer dtype of complex", 1j),
    Wrong(RuntimeError, "cannot be converted to type uint8 without overflow: 300", 300, dtype=U8),
    Wrong(RuntimeError, r"cannot be converted to type int32 without overflow: \[inf\]", [float("inf")], dtype=I32),
    Wrong(RuntimeError, "cannot be converted to type int64 without overflow", 2**63),
    Wrong(RuntimeError, "there is no device 'cuda:1'", 1, device="cuda:1"),
)

ROWS = [
    plain(creation.zeros, filled(0), SIZES, *of_one_value("zeros")),
    plain(creation.ones, filled(1), SIZES, *of_one_value("ones")),
    plain(
        creation.full,
        full,
        calls(
            Sample((2, 3), 1.5),
            Sample((2,), 3),
            Sample((), True),
            Sample((0,), 2.0),
            Sample((2,), 3, dtype=F64),
            Sample((2,), -1, dtype=I32),
            Sample([2], 1.7, dtype=I64),
            Sample((2,), float("inf"), dtype=F16),
        ),
        Wrong(TypeError, r"'size' \(position 1\) must be tuple of ints, not int", 3, 1.0),
        Wrong(TypeError, r"'fill_value' \(position 2\) must be Number, not list", (2,), [1]),
        Wrong(TypeError, r"'fill_value' \(position 2\) must be Number, not Tensor", (2,), np.ones(1)),
        Wrong(RuntimeError, "uint8 without overflow: 300", (2,), 300, dtype=U8),
        Wrong(RuntimeError, "int64 without overflow: nan", (2,), float("nan"), dtype=I64),
        Wrong(RuntimeError, "negative dimension -2", (-2,), 1),
    ),
    plain(
        creation.scalar_tensor,
        lambda s, dtype=F32: np.array(s, dtype),
        calls(Sample(3), Sample(2.5), Sample(True), Sample(3, dtype=I64)),
        Wrong(TypeError, "must be Number, not list", [1.0]),
        lacks={"empty": "it makes single numbers"},
    ),
    plain(
        creation.zeros_like,
        lambda x, dtype=None: filled(0, dtype or x.dtype)(x.shape),
        LIKE,
        Wrong(TypeError, r"'input' \(position 1\) must be Tensor, not int", 1),
    ),
    plain(
        creation.ones_like,
        lambda x, dtype=None: filled(1, dtype or x.dtype)(x.shape),
        LIKE,
        Wrong(TypeError, r"'input' \(position 1\) must be Tensor, not list", [1]),
    ),
    plain(
        creation.full_like,
        lambda x, value, dtype=None: filled(value, dtype or x.dtype)(x.shape),
        calls(
            Sample(np.ones((2, 3)), 2),
            Sample(np.ones(()), 1.5),
            Sample(np.ones((0, 2), np.int32), 3),
            Sample(X, 2.7, dtype=F64),
            Sample(X, True),
        ),
        Wrong(TypeError, "must be Number, not str", X, "a"),
        Wrong(RuntimeError, "int32 without overflow", X, 2**31),
    ),
    plain(creation.tensor, inferred, DATA, *UNKNOWN),
    plain(creation.as_tensor, inferred, DATA, *UNKNOWN),
    plain(
        creation.asarray,
        inferred,
        calls(Sample([1.0, 2.0]), Sample(3), Sample([], copy=True), Sample([1], dtype=F64), Sample(np.ones(2))),
        Wrong(ValueError, "can't alias list as a tensor", [1.0], copy=False),
        Wrong(ValueError, "can't alias int32 as a tensor of dtype int64", X, copy=False, dtype=I64),
    ),
    plain(
        creation.new_tensor,
        lambda x, data, dtype=None: np.array(data, dtype or x.dtype),
        calls(
            Sample(X, [1, 2]),
            Sample(NUMBER, 3),
            Sample(NOTHING, []),
            Sample(np.ones(1), [1, 2]),
            Sample(X, [1.5], dtype=F64),
        ),
        Wrong(ValueError, "not of one length", X, [[1], 2, [3, 4]]),
        torch=method("new_tensor"),
    ),
    *(
        plain(
            getattr(creation, f"new_{name}"),
            in_its_dtype(filled(value)),
            calls(
                Sample(X, 2, 3),
                Sample(NUMBER, ()),
                Sample(np.ones(1), (2,)),
                Sample(NOTHING, 0, dtype=F64),
                Sample(X, size=(2,)),
            ),
            Wrong(RuntimeError, "negative dimension -1", X, -1),
            Wrong(TypeError, "missing 1 required positional", X),
            torch=method(f"new_{name}"),
        )
        for name, value in (("zeros", 0), ("ones", 1))
    ),
    plain(
        creation.new_full,
        in_its_dtype(full),
        calls(
            Sample(X, (2,), 3),
            Sample(NUMBER, (), 2.5, dtype=F64),
            Sample(np.ones(1), (0, 2), 1),
            Sample(NOTHING, (1,), 1),
        ),
        Wrong(TypeError, "must be tuple of ints, not int", X, 2, 3),
        torch=method("new_full"),
    ),
]
FAMILY = creation
EXEMPT = [
    *(
        Exempt(getattr(creation, name), "its values are whatever the memory held; test_empty checks shape and dtype")
        for name in ("empty", "empty_like", "new_empty")
    ),
    Exempt(creation.from_numpy, "takes an array, not a tensor; test_from_numpy checks that memory is shared"),
]
