"""Recurrent networks: one step of each kind, and a layer as a sequence of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..autograd.primitive import Primitive, define
from ..autograd.tensor import Array
from .elementwise import _sigmoid, _tanh, relu, tanh
from .join import cat, stack
from .linalg import linear, matmul
from .shape import _cat

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]

# Long short-term memory (Hochreiter and Schmidhuber, 1997) ----------------------------------------------------------


def _quarters(x: Any) -> tuple[Any, Any, Any, Any]:
    """What stands for the input gate, the forget gate, the new values and the output gate, each (..., H)."""
    n = x.shape[-1] // 4
    return x[..., :n], x[..., n : 2 * n], x[..., 2 * n : 3 * n], x[..., 3 * n :]


def _lstm_forward(gates: Array, cell: Array) -> tuple[Array, Array]:
    i, f, n, o = _quarters(gates)
    memory = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(n)
    return _sigmoid(o) * np.tanh(memory), memory


def _of_memory(g: Any, o: Any, memory: Any) -> Any:
    """The gradient of the memory, on its way to the output too."""
    from_output, direct = g
    if from_output is None:
        return direct
    bounded = _tanh(memory)
    through = from_output * o * (1.0 - bounded * bounded)
    return through if direct is None else direct + through


def _lstm_of_gates(g: Any, gates: Any, cell: Any, output: Any) -> Any:
    i, f, _, o = _quarters(_sigmoid(gates))
    n = _tanh(_quarters(gates)[2])
    memory = _of_memory(g, o, output[1])
    of_o = o * 0.0 if g[0] is None else g[0] * _tanh(output[1]) * (o * (1.0 - o))
    parts = (memory * n * (i * (1.0 - i)), memory * cell * (f * (1.0 - f)), memory * i * (1.0 - n * n), of_o)
    return _cat(*parts, dim=gates.ndim - 1)


def _lstm_of_cell(g: Any, gates: Any, output: Any) -> Any:
    _, f, _, o = (_sigmoid(x) for x in _quarters(gates))
    return _of_memory(g, o, output[1]) * f


_lstm: Primitive = define(
    "LstmCell", _lstm_forward, ("gates", "cell"), multiple=True, gates=_lstm_of_gates, cell=_lstm_of_cell
)

# Gated recurrent units (Cho et al., 2014) ---------------------------------------------------------------------------


def _thirds(x: Any) -> tuple[Any, Any, Any]:
    """What stands for the reset gate, the update gate and the new values, each (..., H)."""
    n = x.shape[-1] // 3
    return x[..., :n], x[..., n : 2 * n], x[..., 2 * n :]


def _gru_forward(gates: Array, hidden_gates: Array, hidden: Array) -> Array:
    (r, z, n), (hr, hz, hn) = _thirds(gates), _thirds(hidden_gates)
    new = np.tanh(n + _sigmoid(r + hr) * hn)
    out: Array = new + _sigmoid(z + hz) * (hidden - new)
    return out


def _gru_slopes(g: Any, gates: Any, hidden_gates: Any, hidden: Any) -> tuple[Any, Any, Any, Any]:
    """The gradients of the three sums, and the reset gate."""
    (r, z, n), (hr, hz, hn) = _thirds(gates), _thirds(hidden_gates)
    r, z = _sigmoid(r + hr), _sigmoid(z + hz)
    new = _tanh(n + r * hn)
    of_new = g * (1.0 - z) * (1.0 - new * new)
    return of_new * hn * (r * (1.0 - r)), g * (hidden - new) * (z * (1.0 - z)), of_new, r


def _gru_of_gates(g: Any, gates: Any, hidden_gates: Any, hidden: Any) -> Any:
    of_r, of_z, of_new, _ = _gru_slopes(g, gates, hidden_gates, hidden)
    return _cat(of_r, of_z, of_new, dim=gates.ndim - 1)


def _gru_of_hidden_gates(g: Any, gates: Any, hidden_gates: Any, hidden: Any) -> Any:
    of_r, of_z, of_new, r = _gru_slopes(g, gates, hidden_gates, hidden)
    return _cat(of_r, of_z, of_new * r, dim=gates.ndim - 1)


_gru: Primitive = define(
    "GruCell",
    _gru_forward,
    ("gates", "hidden_gates", "hidden"),
    gates=_gru_of_gates,
    hidden_gates=_gru_of_hidden_gates,
    hidden=lambda g, gates, hidden_gates: g * _sigmoid(_thirds(gates)[1] + _thirds(hidden_gates)[1]),
)

# One step -----------------------------------------------------------------------------------------------------------


def _check_step(input: Tensor, hidden: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor) -> None:
    if input.shape[-1] != w_ih.shape[1]:
        raise RuntimeError(f"input has inconsistent input_size: got {input.shape[-1]} expected {w_ih.shape[1]}")
    for number, state in enumerate(hidden):
        if state.shape[:-1] != input.shape[:-1]:
            raise RuntimeError(
                f"Input batch size {list(input.shape[:-1])} doesn't match hidden{number} batch size "
                f"{list(state.shape[:-1])}"
            )
        if state.shape[-1] != w_hh.shape[1]:
            raise RuntimeError(
                f"hidden{number} has inconsistent hidden_size: got {state.shape[-1]}, expected {w_hh.shape[1]}"
            )


def lstm_cell(
    input: Tensor,
    hx: tuple[Tensor, Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of a long short-term memory, as ``torch.lstm_cell``.

    Args:
        input: (N, I) or (I,).
        hx: output and memory of the step before, each (N, H) or (H,).
        w_ih: (4 H, I): input gate, forget gate, new values, output gate.
        w_hh: (4 H, H).
        b_ih: (4 H,).
        b_hh: (4 H,).

    Returns:
        Output and memory, each (N, H) or (H,).

    Raises:
        RuntimeError: shapes that do not fit.
    """
    _check_step(input, hx, w_ih, w_hh)
    hidden, cell = _lstm(linear(input, w_ih, b_ih) + linear(hx[0], w_hh, b_hh), hx[1])
    return hidden, cell


def gru_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """One step of a gated recurrent unit, as ``torch.gru_cell``.

    Args:
        input: (N, I) or (I,).
        hx: the output of the step before, (N, H) or (H,).
        w_ih: (3 H, I): reset gate, update gate, new values.
        w_hh: (3 H, H).
        b_ih: (3 H,).
        b_hh: (3 H,).

    Returns:
        (N, H) or (H,).

    Raises:
        RuntimeError: shapes that do not fit.
    """
    _check_step(input, (hx,), w_ih, w_hh)
    out: Tensor = _gru(linear(input, w_ih, b_ih), linear(hx, w_hh, b_hh), hx)
    return out


def rnn_tanh_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """``tanh(input @ w_ih.T + b_ih + hx @ w_hh.T + b_hh)``, as ``torch.rnn_tanh_cell``. Shapes as of ``gru_cell``."""
    _check_step(input, (hx,), w_ih, w_hh)
    return tanh(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


def rnn_relu_cell(
    input: Tensor,
    hx: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:
    """``rnn_tanh_cell`` with max(x, 0) in place of tanh(x), as ``torch.rnn_relu_cell``."""
    _check_step(input, (hx,), w_ih, w_hh)
    return relu(linear(input, w_ih, b_ih) + linear(hx, w_hh, b_hh))


# A layer ------------------------------------------------------------------------------------------------------------


def _lstm_step(w_hh: Tensor, w_hr: Tensor | None) -> Step:
    across, smaller = w_hh.t(), None if w_hr is None else w_hr.t()

    def step(gates: Tensor, state: State) -> State:
        hidden, cell = _lstm(gates + matmul(state[0], across), state[1])
        return hidden if smaller is None else matmul(hidden, smaller), cell

    return step


def _gru_step(w_hh: Tensor, b_hh: Tensor | None) -> Step:
    across = w_hh.t()

    def step(gates: Tensor, state: State) -> State:
        products = matmul(state[0], across)
        return (_gru(gates, products if b_hh is None else products + b_hh, state[0]),)

    return step


def _plain_step(w_hh: Tensor, function: Callable[[Tensor], Tensor]) -> Step:
    across = w_hh.t()
    return lambda gates, state: (function(gates + matmul(state[0], across)),)


def _scan(step: Step, inputs: Sequence[Tensor], state: State, reverse: bool) -> tuple[list[Tensor], State]:
    """One step after another, each with the first so many samples of the state as its input has."""
    outputs: list[Any] = [None] * len(inputs)
    order = range(len(inputs) - 1, -1, -1) if reverse else range(len(inputs))
    size, ended = len(inputs[order[0]]), []
    current = tuple(x[:size] for x in state) if size != len(state[0]) else state
    for place in order:
        count = len(inputs[place])
        if count < size:  # forwards, these samples have come to their end
            ended.append(tuple(x[count:] for x in current))
            current = tuple(x[:count] for x in current)
        elif count > size:  # backwards, these samples begin here
            current = tuple(cat([x, first[size:count]]) for x, first in zip(current, state, strict=True))
        size = count
        current = step(inputs[place], current)
        outputs[place] = current[0]
    if ended:
        parts = [current, *reversed(ended)]
        current = tuple(cat([part[number] for part in parts]) for number in range(len(current)))
    return outputs, current


def recurrent_layer(
    kind: str,
    input: Tensor,
    state: State,
    weights: Sequence[Tensor | None],
    batch_sizes: Sequence[int] | None = None,
    reverse: bool = False,
) -> tuple[Tensor, State]:
    """All steps of one layer in one direction.

    Args:
        kind: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        input: (T, N, I); or, with ``batch_sizes``, the steps below each other, (sum of them, I).
        state: the first output, (N, H), and for "LSTM" the first memory.
        weights: w_ih, w_hh, b_ih, b_hh (or None) and, for "LSTM", the projection (P, H) of the output, or None.
        batch_sizes: how many samples each step has; it does not increase.
        reverse: begin with the last step.

    Returns:
        The outputs, in the shape of the input but for H (or P) in place of I; and the last state.
    """
    w_ih, w_hh, b_ih, b_hh, w_hr = (*weights, None)[:5]
    assert w_ih is not None and w_hh is not None
    step: Step
    if kind == "GRU":
        gates, step = linear(input, w_ih, b_ih), _gru_step(w_hh, b_hh)
    else:
        bias = b_ih if b_ih is None or b_hh is None else b_ih + b_hh
        gates = linear(input, w_ih, bias)
        functions = {"RNN_TANH": tanh, "RNN_RELU": relu}
        step = _lstm_step(w_hh, w_hr) if kind == "LSTM" else _plain_step(w_hh, functions[kind])
    steps = gates.unbind(0) if batch_sizes is None else gates.split(list(batch_sizes))
    outputs, last = _scan(step, steps, state, reverse)
    return stack(outputs) if batch_sizes is None else cat(outputs), last
