"""Recurrent networks: plain (Elman, 1990), long short-term memory (Hochreiter and Schmidhuber, 1997) and gated
recurrent units (Cho et al., 2014); as layers that pass over a sequence, and as cells that take one step.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..ops import recurrent
from ..ops.join import cat, stack
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter, new_parameter
from .utils.rnn import PackedSequence

_GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _reset(module: Module, hidden_size: int) -> None:
    """PyTorch's initial values: uniform in ±1/sqrt(hidden_size)."""
    bound = 1.0 / math.sqrt(hidden_size) if hidden_size > 0 else 0.0
    for parameter in module.parameters():
        init.uniform_(parameter, -bound, bound)


class RNNBase(Module):
    """What ``RNN``, ``LSTM`` and ``GRU`` share: layers and directions, and how they are passed.

    Args:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        input_size: the length of an input.
        hidden_size: the length of an output.
        num_layers: each layer's outputs are the next one's inputs.
        bias: whether the products have one.
        batch_first: tensors are (N, T, ...) instead of (T, N, ...); not so the states.
        dropout: the probability of dropout between layers.
        bidirectional: a second pass from the last step to the first, whose outputs stand beside those of the first.
        proj_size: the length that an LSTM's outputs are projected to; 0 for none.
        device: "cpu".
        dtype: of the parameters, the default dtype without it.

    Raises:
        TypeError: ``hidden_size`` is no int.
        ValueError: sizes that are not positive, a probability outside [0, 1], or a projection that is not smaller.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(hidden_size, int):
            raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
        if isinstance(dropout, bool) or not 0 <= dropout <= 1:
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an element being zeroed, "
                f"not {dropout}"
            )
        if hidden_size <= 0:
            raise ValueError(f"hidden_size must be greater than zero, not {hidden_size}")
        if num_layers <= 0:
            raise ValueError(f"num_layers must be greater than zero, not {num_layers}")
        if proj_size < 0:
            raise ValueError("proj_size should be a positive integer or zero to disable projections")
        if proj_size >= hidden_size:
            raise ValueError(f"proj_size has to be smaller than hidden_size, but is {proj_size} for {hidden_size}")
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}",
                stacklevel=3,
            )
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        gates = _GATES[mode] * hidden_size
        output = proj_size or hidden_size
        for suffix, layer in self._passes():
            width = input_size if layer == 0 else output * (2 if bidirectional else 1)
            sizes: dict[str, tuple[int, ...]] = {"weight_ih": (gates, width), "weight_hh": (gates, output)}
            sizes |= {"bias_ih": (gates,), "bias_hh": (gates,)} if bias else {}
            sizes |= {"weight_hr": (proj_size, hidden_size)} if proj_size else {}
            for name, size in sizes.items():
                self.register_parameter(name + suffix, new_parameter(size, device, dtype))
        self.reset_parameters()

    def _passes(self) -> list[tuple[str, int]]:
        """For each pass over a sequence, how its parameters' names end, and its layer."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        return [(f"_l{layer}{end}", layer) for layer in range(self.num_layers) for end in directions]

    def _weights(self, suffix: str) -> list[Parameter | None]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        return [self._parameters.get(name + suffix) for name in names]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each pass."""
        return [[p for p in self._weights(suffix) if p is not None] for suffix, _ in self._passes()]

    def flatten_parameters(self) -> None:
        """Of no use here: PyTorch calls it for GPUs."""

    def reset_parameters(self) -> None:
        """Draws new initial values, uniform in ±1/sqrt(hidden_size)."""
        _reset(self, self.hidden_size)

    def extra_repr(self) -> str:
        """The arguments that are not the usual ones."""
        shown = [("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0)]
        shown.append(("bidirectional", False))
        options = [f"{name}={getattr(self, name)}" for name, usual in shown if getattr(self, name) != usual]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *options])

    def _check_input(self, input: Tensor, packed: bool) -> None:
        if not packed and input.ndim not in (2, 3):
            raise ValueError(f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.ndim}D instead")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                f"input.size(-1) must be equal to input_size. Expected {self.input_size}, got {input.shape[-1]}"
            )
        weight = self._weights("_l0")[0]
        if weight is not None and input.dtype != weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). Convert input: "
                f"input.to({weight.dtype}), or convert model: model.to({input.dtype})"
            )

    def _initial(self, hx: tuple[Tensor, ...] | None, batch: int, dtype: Any, batched: bool) -> tuple[Tensor, ...]:
        """The states to begin with, (passes, N, length), checked, or zeros."""
        passes = len(self._passes())
        lengths = [self.proj_size or self.hidden_size]
        lengths += [self.hidden_size] if self.mode == "LSTM" else []
        if hx is None:
            return tuple(Tensor(np.zeros((passes, batch, n), dtype)) for n in lengths)
        kind, ndim = ("batched 3-D", 3) if batched else ("unbatched 2-D", 2)
        if any(state.ndim != ndim for state in hx):
            names = "hx and cx" if len(hx) == 2 else "hx"
            found = f"({hx[0].ndim}-D, {hx[1].ndim}-D) tensors" if len(hx) == 2 else f"{hx[0].ndim}-D tensor"
            raise RuntimeError(f"For {kind} input, {names} should also be {ndim}-D but got {found}")
        states = tuple(hx) if batched else tuple(state.unsqueeze(1) for state in hx)
        for number, (state, length) in enumerate(zip(states, lengths, strict=True)):
            if tuple(state.shape) != (passes, batch, length):
                name = f"hidden[{number}]" if len(hx) == 2 else "hidden"
                raise RuntimeError(f"Expected {name} size {(passes, batch, length)}, got {list(state.shape)}")
        return states

    def _run(self, input: Any, hx: tuple[Tensor, ...] | None) -> tuple[Any, tuple[Tensor, ...]]:
        """The outputs, in the form of the input, and the last states."""
        packed = input if isinstance(input, PackedSequence) else None
        x: Tensor = input if packed is None else packed.data
        self._check_input(x, packed is not None)
        batched = packed is not None or x.ndim == 3
        if packed is None:
            x = x if batched else x.unsqueeze(1)
            x = x.transpose(0, 1) if batched and self.batch_first else x
            if not len(x):
                raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
            sizes = None
            batch = x.shape[1]
        else:
            sizes = [int(n) for n in packed.batch_sizes.tolist()]
            batch = sizes[0]
        states = self._initial(hx, batch, x.dtype, batched)
        order = None if packed is None else packed.sorted_indices
        if hx is not None and order is not None:
            states = tuple(state.index_select(1, order) for state in states)
        x, last = self._pass(x, states, sizes)
        if packed is not None:
            if packed.unsorted_indices is not None:
                last = tuple(state.index_select(1, packed.unsorted_indices) for state in last)
            return packed._replace(data=x), last
        if batched and self.batch_first:
            x = x.transpose(0, 1)
        return (x, last) if batched else (x.squeeze(1), tuple(state.squeeze(1) for state in last))

    def _pass(
        self, x: Tensor, states: tuple[Tensor, ...], sizes: list[int] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All layers, each in its one or two directions."""
        directions = 2 if self.bidirectional else 1
        passes = [suffix for suffix, _ in self._passes()]
        last: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                initial = tuple(state[place] for state in states)
                weights = self._weights(passes[place])
                out, final = recurrent.recurrent_layer(self.mode, x, initial, weights, sizes, reverse=direction == 1)
                outputs.append(out)
                last.append(final)
            x = outputs[0] if directions == 1 else cat(outputs, -1)
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(stack([final[n] for final in last]) for n in range(len(states)))


class RNN(RNNBase):
    """Each output is tanh (or ReLU) of a product of the input and one of the output before.

    Args:
        args: ``input_size``, ``hidden_size``, ``num_layers`` and ``nonlinearity`` ("tanh" or "relu"), and then those of
            ``RNNBase`` from ``bias`` on.
        kwargs: likewise, by name.

    Raises:
        ValueError: another nonlinearity, or ``proj_size``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        if len(args) > 3:
            kwargs["nonlinearity"] = args[3]
            args = args[:3] + args[4:]
        nonlinearity = kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity {nonlinearity!r}. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", *args, **kwargs)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(T, N, input_size) and the first state, or zeros -> the outputs (T, N, H) and the last state (passes, N, H).

        With ``batch_first`` (N, T, ...); without N for one sequence; a packed sequence gives a packed sequence.
        """
        out, (last,) = self._run(input, None if hx is None else (hx,))
        return out, last


class GRU(RNNBase):
    """Gated recurrent units: a gate decides how much of the output before is kept.

    Args:
        args: those of ``RNNBase`` from ``input_size`` on, without ``proj_size``.
        kwargs: likewise, by name.

    Raises:
        ValueError: ``proj_size``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)

    def forward(self, input: Tensor | PackedSequence, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """(T, N, input_size) and the first state, or zeros -> the outputs (T, N, H) and the last state (passes, N, H).

        With ``batch_first`` (N, T, ...); without N for one sequence; a packed sequence gives a packed sequence.
        """
        out, (last,) = self._run(input, None if hx is None else (hx,))
        return out, last


class LSTM(RNNBase):
    """Long short-term memory: gates decide what goes into a memory, what stays there, and what comes out.

    Args:
        args: those of ``RNNBase`` from ``input_size`` on.
        kwargs: likewise, by name.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)

    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        """(T, N, input_size) and first output and memory, or zeros -> outputs (T, N, H) and last output and memory.

        The states are (passes, N, H). With ``batch_first`` (N, T, ...); without N for one sequence; a packed sequence
        gives a packed sequence.
        """
        out, (hidden, cell) = self._run(input, hx)
        return out, (hidden, cell)


class _Cell(Module):
    """One step: the parameters and what is checked."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size: int, hidden_size: int, bias: bool, gates: int, device: Any, dtype: Any) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = gates * hidden_size
        self.weight_ih = new_parameter((rows, input_size), device, dtype)
        self.weight_hh = new_parameter((rows, hidden_size), device, dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, new_parameter((rows,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values, uniform in ±1/sqrt(hidden_size)."""
        _reset(self, self.hidden_size)

    def extra_repr(self) -> str:
        """The arguments, ``bias`` if there is none."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    def _states(self, input: Tensor, given: tuple[Tensor, ...] | None, number: int) -> tuple[Tensor, ...]:
        """The states before the step, checked, or zeros."""
        name = type(self).__name__
        if input.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        if given is None:
            zeros = Tensor(np.zeros((*input.shape[:-1], self.hidden_size), input.dtype))
            return (zeros,) * number
        for place, state in enumerate(given):
            if state.ndim not in (1, 2):
                what = f"hx[{place}]" if number == 2 else "hidden"
                raise ValueError(f"{name}: Expected {what} to be 1D or 2D, got {state.ndim}D instead")
        return given

    def _parameters_of_step(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh


class RNNCell(_Cell):
    """One step of an ``RNN``.

    Args:
        input_size: the length of an input.
        hidden_size: the length of an output.
        bias: whether the products have one.
        nonlinearity: "tanh" or "relu".
        device: "cpu".
        dtype: of the parameters, the default dtype without it.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """(N, input_size) and the output before (N, H), or zeros -> (N, H); or all without N."""
        steps = {"tanh": recurrent.rnn_tanh_cell, "relu": recurrent.rnn_relu_cell}
        if self.nonlinearity not in steps:
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        (state,) = self._states(input, None if hx is None else (hx,), 1)
        return steps[self.nonlinearity](input, state, *self._parameters_of_step())

    def extra_repr(self) -> str:
        """The arguments that are not the usual ones."""
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(_Cell):
    """One step of an ``LSTM``.

    Args:
        input_size: the length of an input.
        hidden_size: the length of an output.
        bias: whether the products have one.
        device: "cpu".
        dtype: of the parameters, the default dtype without it.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(N, input_size), output and memory before, each (N, H), or zeros -> output and memory; or all without N."""
        hidden, cell = self._states(input, hx, 2)
        return recurrent.lstm_cell(input, (hidden, cell), *self._parameters_of_step())


class GRUCell(_Cell):
    """One step of a ``GRU``.

    Args:
        input_size: the length of an input.
        hidden_size: the length of an output.
        bias: whether the products have one.
        device: "cpu".
        dtype: of the parameters, the default dtype without it.
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """(N, input_size) and the output before (N, H), or zeros -> (N, H); or all without N."""
        (state,) = self._states(input, None if hx is None else (hx,), 1)
        return recurrent.gru_cell(input, state, *self._parameters_of_step())
