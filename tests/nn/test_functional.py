from __future__ import annotations

import numpy as np
import pytest

import distgrad
from distgrad.nn import functional as F


def test_every_name_is_there() -> None:
    assert all(callable(getattr(F, name)) for name in F.__all__)


def test_one_hot() -> None:
    assert F.one_hot(distgrad.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    out = F.one_hot(distgrad.tensor([[1], [0]]), 4)
    assert out.shape == (2, 1, 4) and out.dtype == np.int64 and out.sum().item() == 2
    assert F.one_hot(distgrad.tensor([], dtype=np.int64), 3).shape == (0, 3)
    with pytest.raises(RuntimeError, match="class value 3 is out of bounds: there are 3 classes"):
        F.one_hot(distgrad.tensor([3]), 3)
    with pytest.raises(RuntimeError, match="class value -1 is out of bounds"):
        F.one_hot(distgrad.tensor([-1, 1]))
    with pytest.raises(RuntimeError, match="only applicable to index tensor"):
        F.one_hot(distgrad.tensor([1.0]))
    with pytest.raises(RuntimeError, match="Can not infer"):
        F.one_hot(distgrad.tensor([], dtype=np.int64))


def test_dropout_takes_a_generator() -> None:
    x = distgrad.ones(50)
    masks = [F.dropout(x, 0.5, generator=distgrad.Generator(3)).tolist() for _ in range(2)]
    assert masks[0] == masks[1] and 0.0 in masks[0] and 2.0 in masks[0]
    assert F.dropout(x, 0.5, training=False) is x


def test_softmax_takes_a_dtype() -> None:
    x = distgrad.tensor([1.0, 2.0])
    assert F.softmax(x, 0, dtype=distgrad.float64).dtype == np.float64
    assert F.log_softmax(x, 0).exp().sum().item() == pytest.approx(1)
