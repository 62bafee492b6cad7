"""``repr`` of a tensor, against fixed strings and, over a seeded sweep, against PyTorch itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from distgrad.autograd import printing
from distgrad.autograd.printing import format_tensor, set_printoptions
from distgrad.autograd.tensor import Tensor

NAN, INF = float("nan"), float("inf")

SHAPES: list[tuple[int, ...]] = [
    (), (1,), (7,), (24,), (25,), (50,), (1000,), (1001,), (3, 4), (1, 30), (40, 30), (6, 200), (7, 200), (2000, 1),
    (2, 3, 4), (1, 1, 1), (2, 6, 200), (10, 11, 12), (2, 1, 3, 2), (5, 5, 6, 8), (2, 2, 2, 2, 2), (0,), (2, 0), (0, 3),
]  # fmt: skip
DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
OPTIONS: list[dict[str, Any]] = [
    {"precision": 2},
    {"precision": 0, "linewidth": 79},
    {"precision": 7, "linewidth": 20},
    {"profile": "short"},
    {"profile": "short", "edgeitems": 1, "threshold": 3},
    {"profile": "full", "linewidth": 120},
    {"threshold": 5, "edgeitems": 0},
    {"threshold": 0, "edgeitems": 5},
    {"linewidth": 5, "threshold": 20},
    {"sci_mode": True},
    {"sci_mode": False},
    {"sci_mode": True, "precision": 1, "threshold": 10, "edgeitems": 2},
]


class NamedNode:
    """Stands in for a graph node: printing asks only for its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


class Parameter(Tensor):
    """Known to printing by its name alone, as ``nn.Parameter`` is."""


class ScaledParameter(Parameter):
    pass


class Masked(Tensor):
    pass


def make(array: Any, requires_grad: bool = False, grad_fn: str | None = None, kind: type[Tensor] = Tensor) -> Tensor:
    tensor = kind(np.asarray(array))
    tensor._requires_grad = requires_grad or grad_fn is not None
    if grad_fn is not None:
        tensor._node = NamedNode(grad_fn)  # type: ignore[assignment]
    return tensor


def f32(values: Any) -> np.ndarray[Any, Any]:
    return np.asarray(values, dtype=np.float32)


def drawn(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray[Any, Any]:
    """Values of a random scale, whole or not, of narrow or wide span, with special values mixed in."""
    if np.dtype(dtype).kind != "f":
        scale = 1 if rng.random() < 0.3 else 10 ** int(rng.integers(0, 7))
        return np.asarray(rng.integers(-100, 101, shape) * scale).astype(dtype)
    values = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 9))
    if rng.random() < 0.3:
        values = np.round(values)
    if rng.random() < 0.3:
        values = values * 10.0 ** rng.integers(-4, 5, shape)
    for special in (NAN, INF, -INF, 0.0, -0.0, 1e-4, 1e8):
        if rng.random() < 0.15:
            values = np.where(rng.random(shape) < rng.choice([0.1, 0.9, 1.0]), special, values)
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(dtype)


@pytest.fixture(autouse=True)
def restored_options() -> Iterator[None]:
    yield
    set_printoptions(profile="default")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (f32(1.0), "tensor(1.)"),
        (f32(1.5e-9), "tensor(1.5000e-09)"),
        (f32(NAN), "tensor(nan)"),
        (np.array(True), "tensor(True)"),
        (np.array(3), "tensor(3)"),
        (np.array(5, np.uint8), "tensor(5, dtype=torch.uint8)"),
        (f32([2.0, 3.0]), "tensor([2., 3.])"),
        (f32([1.0, -20.0]), "tensor([  1., -20.])"),
        (f32([-0.12345, 10.5]), "tensor([-0.1235, 10.5000])"),
        (f32([0.0, -0.0]), "tensor([0., -0.])"),
        (f32([-0.0, 1.5]), "tensor([-0.0000, 1.5000])"),
        (f32([NAN, 1.5]), "tensor([   nan, 1.5000])"),
        (f32([INF, -INF, 1.0]), "tensor([inf, -inf, 1.])"),
        (f32([NAN, NAN]), "tensor([nan, nan])"),
        # A span of exactly 1000 stays fixed; whole numbers are spared the lower limit but not the span.
        (f32([1.5, 1500.0]), "tensor([   1.5000, 1500.0000])"),
        (f32([1.5, 1502.0]), "tensor([1.5000e+00, 1.5020e+03])"),
        (f32([1.0, 1e5]), "tensor([1.0000e+00, 1.0000e+05])"),
        (f32(1e8), "tensor(100000000.)"),
        (f32(1e9), "tensor(1.0000e+09)"),
        # float32's 1e-4 lies below 1e-4, float64's does not.
        (f32(1e-4), "tensor(1.0000e-04)"),
        (np.array(1e-4), "tensor(0.0001, dtype=torch.float64)"),
        (np.array([1e-300, 1e300]), "tensor([1.0000e-300, 1.0000e+300], dtype=torch.float64)"),
        (np.array([65504.0, 1e-7], np.float16), "tensor([6.5504e+04, 1.1921e-07], dtype=torch.float16)"),
        (np.array([1, -200, 3], np.int32), "tensor([   1, -200,    3], dtype=torch.int32)"),
        (np.array([[True, False]]), "tensor([[ True, False]])"),
        (np.array([-(2**63), 2**63 - 1]), "tensor([-9223372036854775808,  9223372036854775807])"),
        (f32([]), "tensor([])"),
        (np.zeros(0, np.int64), "tensor([], dtype=torch.int64)"),
        (np.zeros(0, np.bool_), "tensor([], dtype=torch.bool)"),
        (np.zeros((2, 0), np.float32), "tensor([], size=(2, 0))"),
        (np.zeros((0, 3)), "tensor([], size=(0, 3), dtype=torch.float64)"),
        (np.zeros((2000, 0), np.float32), "tensor([], size=(2000, 0))"),
    ],
)
def test_values_and_dtype(array: np.ndarray[Any, Any], expected: str) -> None:
    assert format_tensor(make(array)) == expected


def test_repr_is_format_tensor() -> None:
    assert repr(make(f32([1.5]), requires_grad=True)) == "tensor([1.5000], requires_grad=True)"


def test_nested_dimensions_are_indented_and_separated_by_blank_lines() -> None:
    assert format_tensor(make(np.arange(16).reshape(2, 2, 2, 2))) == textwrap.dedent(
        """\
        tensor([[[[ 0,  1],
                  [ 2,  3]],

                 [[ 4,  5],
                  [ 6,  7]]],


                [[[ 8,  9],
                  [10, 11]],

                 [[12, 13],
                  [14, 15]]]])"""
    )


def test_rows_wrap_at_the_line_width() -> None:
    assert format_tensor(make(f32(np.arange(18) + 0.5).reshape(2, 9))) == textwrap.dedent(
        """\
        tensor([[ 0.5000,  1.5000,  2.5000,  3.5000,  4.5000,  5.5000,  6.5000,  7.5000,
                  8.5000],
                [ 9.5000, 10.5000, 11.5000, 12.5000, 13.5000, 14.5000, 15.5000, 16.5000,
                 17.5000]])"""
    )


def test_more_than_a_thousand_elements_are_summarised() -> None:
    assert "..." not in format_tensor(make(np.arange(1000)))
    assert format_tensor(make(np.arange(1001))) == "tensor([   0,    1,    2,  ...,  998,  999, 1000])"
    assert format_tensor(make(np.arange(2100).reshape(7, 300))) == textwrap.dedent(
        """\
        tensor([[   0,    1,    2,  ...,  297,  298,  299],
                [ 300,  301,  302,  ...,  597,  598,  599],
                [ 600,  601,  602,  ...,  897,  898,  899],
                ...,
                [1200, 1201, 1202,  ..., 1497, 1498, 1499],
                [1500, 1501, 1502,  ..., 1797, 1798, 1799],
                [1800, 1801, 1802,  ..., 2097, 2098, 2099]])"""
    )


def test_hidden_elements_do_not_decide_the_format() -> None:
    values = np.ones(2000, np.float32)
    values[1000] = 1e-30
    assert format_tensor(make(values)) == "tensor([1., 1., 1.,  ..., 1., 1., 1.])"


def test_summary_of_a_huge_tensor_reads_only_its_corners() -> None:
    huge = np.broadcast_to(np.float32(0.5), (1 << 20, 1 << 20))  # 4 TiB, were it ever copied
    text = format_tensor(make(huge))
    assert text.count("0.5000") == 36
    assert text.startswith("tensor([[0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000],\n")


def test_history_follows_the_values() -> None:
    assert format_tensor(make(f32([1.0]), requires_grad=True)) == "tensor([1.], requires_grad=True)"
    assert format_tensor(make(f32([1.0]), grad_fn="AddBackward0")) == "tensor([1.], grad_fn=<AddBackward0>)"
    assert format_tensor(make(f32([]), grad_fn="MulBackward0")) == "tensor([], grad_fn=<MulBackward0>)"
    assert format_tensor(make(np.float64(3), grad_fn="SumBackward0")) == (
        "tensor(3., dtype=torch.float64, grad_fn=<SumBackward0>)"
    )


def test_long_suffixes_go_to_the_next_line() -> None:
    row = "1.2345, 1.2345, 1.2345, 1.2345, 1.2345, 1.2345, 1.2345"
    assert format_tensor(make(np.full((2, 7), 1.2345), grad_fn="MulBackward0")) == (
        f"tensor([[{row}],\n        [{row}]],\n       dtype=torch.float64, grad_fn=<MulBackward0>)"
    )
    assert format_tensor(make(f32([1.0] * 12), requires_grad=True)) == (
        f"tensor([{', '.join(['1.'] * 12)}], requires_grad=True)"
    )


def test_parameters_say_so() -> None:
    assert format_tensor(make(f32([1.0, 2.0]), requires_grad=True, kind=Parameter)) == (
        "Parameter containing:\ntensor([1., 2.], requires_grad=True)"
    )
    assert format_tensor(make(f32([[1.0], [2.0]]), kind=ScaledParameter)) == (
        "Parameter containing:\nParameter(ScaledParameter([[1.],\n                 [2.]]))"
    )


def test_other_subclasses_print_their_name() -> None:
    assert format_tensor(make(f32([[1.0], [2.0]]), kind=Masked)) == "Masked([[1.],\n        [2.]])"


def test_set_printoptions_keeps_what_is_left_out_except_sci_mode() -> None:
    set_printoptions(precision=2, sci_mode=True)
    assert format_tensor(make(f32(1.5))) == "tensor(1.50e+00)"
    set_printoptions(linewidth=40)
    assert format_tensor(make(f32(1.5))) == "tensor(1.50)"
    set_printoptions(profile="short", precision=3)
    assert format_tensor(make(f32(1.5))) == "tensor(1.500)"
    set_printoptions(threshold=5)
    assert format_tensor(make(np.arange(10))) == "tensor([0, 1,  ..., 8, 9])"
    set_printoptions(profile="default")
    assert format_tensor(make(f32([1.12345]))) == "tensor([1.1235])"
    assert format_tensor(make(np.arange(10))) == "tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])"


def test_full_profile_never_summarises() -> None:
    set_printoptions(profile="full")
    text = format_tensor(make(np.arange(1500)))
    assert "..." not in text
    assert text.count(",") == 1499


def test_without_edge_items_the_shape_is_printed() -> None:
    set_printoptions(edgeitems=0, threshold=5)
    assert format_tensor(make(f32(np.zeros((3, 4))))) == "tensor([...], size=(3, 4))"
    assert format_tensor(make(np.array(7))) == "tensor(7, size=())"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"profile": "verbose"}, "profile must be one of default, short, full, got 'verbose'"),
        ({"precision": -1}, "precision must be a whole number of at least 0, got -1"),
        ({"edgeitems": 1.5}, "edgeitems must be a whole number of at least 0, got 1.5"),
        ({"linewidth": "80"}, "linewidth must be a whole number of at least 0, got '80'"),
        ({"threshold": "many"}, "threshold must be a number, got 'many'"),
    ],
)
def test_impossible_options_change_nothing(argument: dict[str, Any], message: str) -> None:
    before = printing._options
    with pytest.raises(ValueError, match=message):
        set_printoptions(**argument)
    assert printing._options is before


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_sweep_prints_as_torch(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng([2013, DTYPES.index(dtype)])
    for shape in SHAPES * (10 if dtype.startswith("float") else 3):
        array = drawn(rng, shape, dtype)
        reference = torch.tensor(array)
        ours = make(array)
        if array.dtype.kind == "f":
            history = rng.integers(4)
            if history > 0:
                reference.requires_grad_()
                ours = make(array, requires_grad=True)
            if history == 1:  # a view
                reference = reference.view(array.shape)
                ours = make(array, grad_fn="ViewBackward0")
            elif history == 2:
                reference = reference.clone()
                ours = make(array, grad_fn="CloneBackward0")
            elif history == 3 and rng.random() < 0.5:
                reference = torch.nn.Parameter(reference.detach())
                ours = make(array, requires_grad=True, kind=Parameter)
        assert format_tensor(ours) == repr(reference), (shape, dtype)


@pytest.mark.parity
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_sweep_under_options_prints_as_torch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng([80, OPTIONS.index(options)])
    set_printoptions(**options)
    torch.set_printoptions(**options)
    try:
        for shape in SHAPES:
            for dtype in ("bool", "int32", "int64", "float16", "float32", "float64"):
                array = drawn(rng, shape, dtype)
                requires_grad = array.dtype.kind == "f" and rng.random() < 0.5
                reference = torch.tensor(array, requires_grad=requires_grad)
                assert format_tensor(make(array, requires_grad)) == repr(reference), (shape, dtype)
    finally:
        torch.set_printoptions(profile="default")


@pytest.mark.parity
@pytest.mark.parametrize("name", ["X", "AddBackward0", "NativeBatchNormBackward0"])
def test_suffixes_break_where_torch_breaks_them(name: str) -> None:
    torch = pytest.importorskip("torch")
    function = type(
        name, (torch.autograd.Function,), {"forward": staticmethod(lambda ctx, x: x.clone()), "backward": None}
    )
    for dtype in ("float32", "float64"):
        for count in range(1, 26):
            array = np.ones(count, dtype)
            for rows in (array, array[None].repeat(2, axis=0)):
                reference = function.apply(torch.tensor(rows, requires_grad=True))  # type: ignore[attr-defined]
                assert format_tensor(make(rows, grad_fn=f"{name}Backward")) == repr(reference)


@pytest.mark.parity
def test_layout_in_memory_does_not_show() -> None:
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).standard_normal((30, 40, 3)).astype(np.float32)
    for view in (array.T, array[::-2, 1::3], array[:, :, 1], np.broadcast_to(array[0, 0], (500, 3))):
        assert format_tensor(make(view)) == repr(torch.tensor(view.copy()))
