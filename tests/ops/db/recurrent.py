from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.ops import recurrent

from .row import Exempt, Op, Sample, Wrong


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def summed(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> tuple[Any, Any]:
    return x @ w_ih.T + (0.0 if b_ih is None else b_ih), h @ w_hh.T + (0.0 if b_hh is None else b_hh)


def lstm(x: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> tuple[Any, Any]:
    i, f, n, o = np.split(sum(summed(x, hx[0], w_ih, w_hh, b_ih, b_hh)), 4, axis=-1)
    cell = sigmoid(f) * hx[1] + sigmoid(i) * np.tanh(n)
    return sigmoid(o) * np.tanh(cell), cell


def gru(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    (r, z, n), (hr, hz, hn) = (np.split(v, 3, axis=-1) for v in summed(x, h, w_ih, w_hh, b_ih, b_hh))
    z = sigmoid(z + hz)
    return (1 - z) * np.tanh(n + sigmoid(r + hr) * hn) + z * h


def plain(function: Any) -> Any:
    def step(x: Any, h: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        return function(sum(summed(x, h, w_ih, w_hh, b_ih, b_hh)))

    return step


def steps(gates: int) -> Any:
    """Inputs of length 2 and outputs of length 1; with gates, that is as small as it gets."""

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        def draw(*size: int) -> Any:
            return rng.standard_normal(size)

        for lead in ((2,), (0,)):
            state: Any = (draw(*lead, 1), draw(*lead, 1)) if gates == 4 else draw(*lead, 1)
            yield Sample(draw(*lead, 2), state, draw(gates, 2), draw(gates, 1))
            yield Sample(draw(*lead, 2), state, draw(gates, 2), draw(gates, 1), draw(gates), draw(gates))

    return samples


X, H = np.zeros((2, 3)), np.zeros((2, 1))


def refused(gates: int, hx: Any, wide: Any, many: Any) -> tuple[Wrong, ...]:
    w_ih, w_hh = np.zeros((gates, 3)), np.zeros((gates, 1))
    return (
        Wrong(RuntimeError, "inconsistent input_size: got 2 expected 3", X[:, :2], hx, w_ih, w_hh),
        Wrong(RuntimeError, "inconsistent hidden_size: got 4, expected 1", X, wide, w_ih, w_hh),
        Wrong(RuntimeError, r"batch size \[2\] doesn't match hidden0 batch size \[5\]", X, many, w_ih, w_hh),
    )


ONE = (H, np.zeros((2, 4)), np.zeros((5, 1)))
TWO = tuple((x, H) for x in ONE)
NO_0D = {"0-d": "it takes batches of vectors"}


def row(op: Any, reference: Any, gates: int, covers: tuple[str, ...]) -> Op:
    return Op(
        op,
        reference,
        steps(gates),
        refused(gates, *(TWO if gates == 4 else ONE)),
        covers,
        dtypes="takes several tensors of one dtype; test_floats_stay",
        lacks=NO_0D,
    )


ROWS = [
    row(recurrent.lstm_cell, lstm, 4, ("LstmCell",)),
    row(recurrent.gru_cell, gru, 3, ("GruCell",)),
    row(recurrent.rnn_tanh_cell, plain(np.tanh), 1, ("Tanh",)),
    row(recurrent.rnn_relu_cell, plain(lambda v: np.maximum(v, 0)), 1, ("Relu",)),
]
FAMILY = recurrent
EXEMPT = [Exempt(recurrent.recurrent_layer, "tests/nn/test_rnn.py has it in the layers that are made of it")]
