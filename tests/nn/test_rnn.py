from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.autograd import gradcheck, gradgradcheck
from distgrad.nn.utils import rnn as sequences

KINDS = ["RNN", "LSTM", "GRU"]


def draw(*size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(size)


def same(kind: str, torch: Any, *sizes: int, **options: Any) -> tuple[Any, Any]:
    """The same layer here and in PyTorch, with the same values."""
    ours, theirs = getattr(nn, kind)(*sizes, **options).double(), getattr(torch.nn, kind)(*sizes, **options).double()
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    return ours, theirs


def flat(result: Any) -> list[Any]:
    """All tensors in a result."""
    if isinstance(result, (tuple, list)):
        return [x for part in result for x in flat(part)]
    return [] if result is None else [result]


def compare(ours: Any, theirs: Any, mine: list[Any], other: list[Any], out: Any, expected: Any) -> None:
    """Results, and the gradients of everything."""
    pairs = [(x, y) for x, y in zip(flat(out), flat(expected), strict=True) if y.is_floating_point()]
    for x, y in pairs:
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-12, atol=1e-13)
    sum(((x * x).sum() for x, _ in pairs), start=0.0).backward()
    sum(((y * y).sum() for _, y in pairs), start=0.0).backward()
    leaves = [*zip(mine, other, strict=True), *zip(ours.parameters(), theirs.parameters(), strict=True)]
    for x, y in leaves:
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-10, atol=1e-12)


def leaves(torch: Any, *arrays: Any) -> tuple[list[Any], list[Any]]:
    return [distgrad.tensor(a, requires_grad=True) for a in arrays], [
        torch.tensor(a, requires_grad=True) for a in arrays
    ]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bias": False},
    {"bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
]


@pytest.mark.parity
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_pytorchs(kind: str, with_state: bool, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = same(kind, torch, 3, 4, **options)
    passes = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    states = [draw(passes, 2, 4, seed=s) for s in range(2 if kind == "LSTM" else 1)] if with_state else []
    x = draw(2, 5, 3) if options.get("batch_first") else draw(5, 2, 3)
    mine, other = leaves(torch, x, *states)
    results = []
    for layer, values in ((ours, mine), (theirs, other)):
        given = () if not with_state else (tuple(values[1:]),) if kind == "LSTM" else (values[1],)
        results.append(layer(values[0], *given))
    compare(ours, theirs, mine, other, *results)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("kind", "options"),
    [("RNN", {"nonlinearity": "relu"}), ("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True})],
)
def test_more_layers(kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = same(kind, torch, 3, 4, **options)
    mine, other = leaves(torch, draw(5, 2, 3))
    compare(ours, theirs, mine, other, ours(*mine), theirs(*other))
    mine, other = leaves(torch, draw(5, 3))
    for p in (*ours.parameters(), *theirs.parameters()):
        p.grad = None
    compare(ours, theirs, mine, other, ours(*mine), theirs(*other))


@pytest.mark.parity
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences_are_pytorchs(kind: str, with_state: bool) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = same(kind, torch, 3, 4, num_layers=2, bidirectional=True)
    states = [draw(4, 3, 4, seed=s) for s in range(2 if kind == "LSTM" else 1)] if with_state else []
    mine, other = leaves(torch, draw(5, 3, 3), *states)
    results = []
    for library, layer, values in ((distgrad, ours, mine), (torch, theirs, other)):
        rnn = library.nn.utils.rnn
        packed = rnn.pack_padded_sequence(values[0], library.tensor([2, 5, 3]), enforce_sorted=False)
        given = () if not with_state else (tuple(values[1:]),) if kind == "LSTM" else (values[1],)
        out, last = layer(packed, *given)
        assert type(out).__name__ == "PackedSequence"
        results.append([rnn.pad_packed_sequence(out, padding_value=0.5), last])
    compare(ours, theirs, mine, other, *results)


@pytest.mark.parity
@pytest.mark.parametrize("options", [{}, {"bias": False}])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_are_pytorchs(kind: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    for size in ((2,), ()):
        ours, theirs = same(f"{kind}Cell", torch, 3, 4, **options)
        mine, other = leaves(
            torch, draw(*size, 3), *(draw(*size, 4, seed=s) for s in range(2 if kind == "LSTM" else 1))
        )
        results = [
            layer(v[0], tuple(v[1:]) if kind == "LSTM" else v[1]) for layer, v in ((ours, mine), (theirs, other))
        ]
        compare(ours, theirs, mine, other, *results)
        mine, other = leaves(torch, draw(*size, 3))
        for p in (*ours.parameters(), *theirs.parameters()):
            p.grad = None
        compare(ours, theirs, mine, other, ours(*mine), theirs(*other))
    if kind == "RNN":
        assert repr(nn.RNNCell(3, 4, nonlinearity="relu")) == repr(torch.nn.RNNCell(3, 4, nonlinearity="relu"))


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind: str) -> None:
    distgrad.manual_seed(0)
    layer = getattr(nn, kind)(1, 1, bidirectional=True).double()
    packed = sequences.pack_padded_sequence(distgrad.tensor(draw(2, 2, 1)), [2, 1])
    data = packed.data.requires_grad_()

    def run(*unused: Any) -> Any:
        out, last = layer(packed)
        return out.data, *flat(last)

    chosen = [data, layer.weight_hh_l0, layer.bias_hh_l0, layer.weight_ih_l0_reverse]
    assert gradcheck(run, chosen) and gradgradcheck(run, chosen)


def test_a_step_at_a_time_gives_the_same() -> None:
    distgrad.manual_seed(0)
    layer, cell = nn.LSTM(3, 4), nn.LSTMCell(3, 4)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x = distgrad.randn(5, 2, 3)
    out, (hidden, memory) = layer(x)
    state = None
    for step, expected in zip(x, out, strict=True):
        state = cell(step, state)
        np.testing.assert_allclose(state[0].detach().numpy(), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state[1].detach().numpy(), memory[0].detach().numpy(), rtol=1e-5, atol=1e-6)
    assert distgrad.equal(hidden[0], out[-1])


def test_dropout_between_layers_in_training_only() -> None:
    distgrad.manual_seed(0)
    layer = nn.GRU(3, 4, num_layers=2, dropout=0.5)
    x = distgrad.randn(5, 2, 3)
    assert not distgrad.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert distgrad.equal(layer(x)[0], layer(x)[0])
    with pytest.warns(UserWarning, match=r"non-zero dropout expects num_layers greater than 1, but got dropout=0.5"):
        nn.GRU(3, 4, dropout=0.5)


def test_initial_values_and_what_they_are_called() -> None:
    distgrad.manual_seed(0)
    layer = nn.LSTM(3, 16, 2, bidirectional=True, dtype=distgrad.float64)
    assert {p.dtype for p in layer.parameters()} == {np.dtype("float64")}
    for parameter in layer.parameters():
        values = np.abs(parameter.detach().numpy())
        assert 0.2 < values.max() <= 0.25
    assert [len(weights) for weights in layer.all_weights] == [4] * 4
    assert layer.all_weights[1][0] is layer.weight_ih_l0_reverse
    assert layer.flatten_parameters() is None


X = np.zeros((5, 2, 3), np.float32)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.LSTM(3, 4.0), TypeError, "hidden_size should be of type int, got: float"),
        (lambda: nn.LSTM(3, 0), ValueError, "hidden_size must be greater than zero"),
        (lambda: nn.LSTM(3, 4, 0), ValueError, "num_layers must be greater than zero"),
        (lambda: nn.LSTM(3, 4, 2, dropout=1.5), ValueError, r"dropout should be a number in range \[0, 1\]"),
        (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "proj_size has to be smaller than hidden_size"),
        (lambda: nn.LSTM(3, 4, proj_size=-1), ValueError, "proj_size should be a positive integer or zero"),
        (lambda: nn.GRU(3, 4, proj_size=2), ValueError, "only supported for LSTM"),
        (lambda: nn.RNN(3, 4, proj_size=2), ValueError, "only supported for LSTM"),
        (lambda: nn.RNN(3, 4, 1, "sin"), ValueError, "Unknown nonlinearity 'sin'"),
        (lambda: nn.RNNCell(3, 4, nonlinearity="sin")(distgrad.ones(3)), RuntimeError, "Unknown nonlinearity: sin"),
        (lambda: nn.LSTM(3, 4)(distgrad.tensor(X[None])), ValueError, "LSTM: Expected input to be 2D or 3D, got 4D"),
        (lambda: nn.GRU(2, 4)(distgrad.tensor(X)), RuntimeError, "to input_size. Expected 2, got 3"),
        (lambda: nn.GRU(3, 4)(distgrad.tensor(X).double()), ValueError, r"input dtype \(float64\) does not match"),
        (lambda: nn.GRU(3, 4)(distgrad.tensor(X[:0])), RuntimeError, "sequence length to be larger than 0"),
        (
            lambda: nn.GRU(3, 4)(distgrad.tensor(X), distgrad.zeros(1, 3, 4)),
            RuntimeError,
            r"Expected hidden size \(1, 2, 4\), got \[1, 3, 4\]",
        ),
        (
            lambda: nn.GRU(3, 4)(distgrad.tensor(X), distgrad.zeros(2, 4)),
            RuntimeError,
            "For batched 3-D input, hx should also be 3-D but got 2-D tensor",
        ),
        (
            lambda: nn.LSTM(3, 4)(distgrad.tensor(X), (distgrad.zeros(1, 2, 4), distgrad.zeros(1, 3, 4))),
            RuntimeError,
            r"Expected hidden\[1\] size \(1, 2, 4\), got \[1, 3, 4\]",
        ),
        (
            lambda: nn.LSTM(3, 4)(distgrad.tensor(X[:, 0]), (distgrad.zeros(1, 1, 4), distgrad.zeros(1, 4))),
            RuntimeError,
            r"For unbatched 2-D input, hx and cx should also be 2-D but got \(3-D, 2-D\) tensors",
        ),
        (lambda: nn.GRUCell(3, 4)(distgrad.tensor(X)), ValueError, "GRUCell: Expected input to be 1D or 2D, got 3D"),
        (
            lambda: nn.LSTMCell(3, 4)(distgrad.tensor(X[0]), (distgrad.zeros(2, 4), distgrad.zeros(1, 2, 4))),
            ValueError,
            r"LSTMCell: Expected hx\[1\] to be 1D or 2D, got 3D",
        ),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# Sequences -----------------------------------------------------------------------------------------------------------


def test_packing_and_padding_undo_each_other() -> None:
    x = distgrad.tensor(draw(3, 5, 2), requires_grad=True)
    packed = sequences.pack_padded_sequence(x, distgrad.tensor([2, 5, 3]), batch_first=True, enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [3, 3, 2, 1, 1] and packed.sorted_indices.tolist() == [1, 2, 0]
    padded, lengths = sequences.pad_packed_sequence(packed, True, -1.0, total_length=6)
    assert lengths.tolist() == [2, 5, 3] and padded.shape == (3, 6, 2)
    for row, original, length in zip(padded.tolist(), x.tolist(), lengths.tolist(), strict=True):
        assert row[:length] == original[:length] and row[length:] == [[-1.0, -1.0]] * (6 - length)
    padded.sum().backward()
    assert x.grad.sum(2).tolist() == [[2.0] * n + [0.0] * (5 - n) for n in (2, 5, 3)]
    assert packed.float().data.dtype == np.float32 and packed.to(distgrad.float16).double().data.dtype == np.float64


def test_sequences_of_different_lengths() -> None:
    rows = [distgrad.tensor([1.0]), distgrad.tensor([2.0, 3.0, 4.0]), distgrad.tensor([5.0, 6.0])]
    padded = sequences.pad_sequence(rows, True, 9.0)
    assert padded.tolist() == [[1.0, 9.0, 9.0], [2.0, 3.0, 4.0], [5.0, 6.0, 9.0]]
    assert sequences.pad_sequence(rows).tolist() == [[1.0, 2.0, 5.0], [0.0, 3.0, 6.0], [0.0, 4.0, 0.0]]
    assert sequences.pad_sequence(rows[:2], True, padding_side="left").tolist() == [[0.0, 0.0, 1.0], [2.0, 3.0, 4.0]]
    unpadded = sequences.unpad_sequence(padded, distgrad.tensor([1, 3, 2]), batch_first=True)
    assert [row.tolist() for row in unpadded] == [row.tolist() for row in rows]
    packed = sequences.pack_sequence(rows, enforce_sorted=False)
    assert packed.data.tolist() == [2.0, 5.0, 1.0, 3.0, 6.0, 4.0]
    assert [row.tolist() for row in sequences.unpack_sequence(packed)] == [row.tolist() for row in rows]
    assert sequences.invert_permutation(None) is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: sequences.pack_padded_sequence(x, [3, 5]), RuntimeError, "must be sorted in decreasing order"),
        (lambda x: sequences.pack_padded_sequence(x, [5, 0]), RuntimeError, "has to be greater than 0"),
        (lambda x: sequences.pack_padded_sequence(x, [5]), RuntimeError, r"got 1 \(batch_size=2\)"),
        (lambda x: sequences.pack_padded_sequence(x, [6, 5]), RuntimeError, "a length of 6 is more than the 5 steps"),
        (lambda x: sequences.pack_padded_sequence(x, [[5, 5]]), RuntimeError, "lengths should be a 1D tensor"),
        (
            lambda x: sequences.pad_packed_sequence(sequences.pack_padded_sequence(x, [5, 3]), total_length=4),
            ValueError,
            "got total_length=4 and max sequence length being 5",
        ),
        (lambda x: sequences.pad_sequence([]), RuntimeError, "received an empty list of sequences"),
        (lambda x: sequences.pad_sequence([x], padding_side="top"), RuntimeError, "padding_side must be 'left' or"),
        (lambda x: sequences.pad_sequence([x, x[:, 0]]), RuntimeError, r"elements of shape \[3\] stand beside"),
    ],
)
def test_what_sequences_refuse(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(distgrad.tensor(X))
