"""How reductions are called, and how their results are named."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest

import distgrad as dg
from distgrad.ops import return_types
from distgrad.ops.dims import dims_argument

NUMPY_NAMES: dict[str, dict[str, Any]] = {
    "sum": {"axis": 0, "keepdims": True},
    "mean": {"axis": (0, 1)},
    "prod": {"axis": 0},
    "var": {"axis": 0, "keepdims": True},
    "std": {"axis": [0, 1]},
    "amax": {"axis": 1, "keepdims": True},
    "max": {"axis": 1, "keepdims": True},
    "argmin": {"axis": 0},
    "any": {"axis": 0, "keepdims": True},
    "count_nonzero": {"axis": 0},
    "logsumexp": {"axis": 0, "keepdims": True},
    "softmax": {"axis": 1},
    "cumsum": {"axis": 1},
    "cummax": {"axis": 0},
    "sort": {"axis": 0},
    "median": {"axis": 0, "keepdims": True},
    "mode": {"axis": 0},
    "diff": {"axis": 0},
}


def first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("name", NUMPY_NAMES)
def test_names_of_numpy(name: str) -> None:
    x = dg.tensor([[1.0, -2.0], [0.0, 4.0]])
    theirs = NUMPY_NAMES[name]
    own = {{"axis": "dim", "keepdims": "keepdim"}[key]: value for key, value in theirs.items()}
    for call in (lambda **kwargs: getattr(dg, name)(x, **kwargs), getattr(x, name)):
        assert first(call(**theirs)).tolist() == first(call(**own)).tolist()
    with pytest.raises(TypeError, match="got both 'axis' and 'dim'"):
        getattr(dg, name)(x, axis=0, dim=0)


@pytest.mark.parametrize("name", [*NUMPY_NAMES, "quantile", "topk", "kthvalue", "cov", "unique", "bincount", "histc"])
def test_what_is_no_tensor_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\): argument 'input' \(position 1\) must be Tensor, not int"):
        getattr(dg, name)(1)


def test_signatures_are_those_of_the_functions() -> None:
    assert list(inspect.signature(dg.sum).parameters) == ["input", "dim", "keepdim", "dtype"]
    assert dg.sum.__name__ == "sum" and dg.sum(input=dg.ones(2)).item() == 2.0


def test_dims() -> None:
    for dim, expected in ((None, (0, 1, 2)), ((), (0, 1, 2)), (-1, (2,)), ([0, -1], (0, 2)), (np.int64(1), (1,))):
        assert dims_argument(dim, 3) == expected
    assert dims_argument(0, 0) == dims_argument(-1, 0) == dims_argument(None, 0) == ()
    for dim in ("0", 1.0, (0, 1.5), True):
        with pytest.raises(TypeError, match="int or a tuple of ints"):
            dims_argument(dim, 3)


def test_named_results() -> None:
    result = dg.tensor([[3.0, 1.0]]).max(1)
    assert isinstance(result, tuple) and isinstance(result, return_types.max)
    values, indices = result
    assert result.values is values and result.indices is indices and len(result) == 2
    assert repr(result) == "torch.return_types.max(\nvalues=tensor([3.]),\nindices=tensor([0]))"
    assert dg.tensor([3.0, 1.0]).aminmax().max.item() == 3.0
    assert dg.return_types.max is return_types.max
    with pytest.raises(AttributeError):
        result.positions  # noqa: B018


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
def test_named_results_can_be_copied(again: Any) -> None:
    result = dg.tensor([[3.0, 1.0]]).sort(1)
    other = again(result)
    assert type(other) is return_types.sort and other.values.tolist() == [[1.0, 3.0]]


@pytest.mark.parity
def test_names_of_results_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    for name in ("max", "aminmax", "median", "nanmedian", "mode", "kthvalue", "sort", "topk", "cummax", "cummin"):
        theirs = getattr(torch.return_types, name)
        fields = getattr(return_types, name)._fields
        assert all(hasattr(theirs, field) for field in fields) and theirs.n_sequence_fields == len(fields)
    x = [[3.0, 1.0], [2.0, 5.0]]
    assert repr(dg.tensor(x).min(0)) == repr(torch.tensor(x).min(0))
