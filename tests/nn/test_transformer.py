from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import distgrad
from distgrad import nn
from distgrad.nn import functional as F


def draw(*size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(size)


def causal(length: int) -> Any:
    return np.triu(np.full((length, length), -np.inf), 1)


SRC, TGT = draw(5, 2, 8), draw(4, 2, 8, seed=1)
SRC_PADDING = np.zeros((2, 5), bool)
SRC_PADDING[1, 3:] = True
LAYER = {"dim_feedforward": 6, "dropout": 0.0}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"norm_first": True, "bias": False},
    {"activation": "gelu", "batch_first": True, "layer_norm_eps": 0.1},
]


def build(library: Any, kind: str, options: dict[str, Any]) -> Any:
    """A layer or a stack of ``torch.nn`` or ``distgrad.nn``."""
    options = LAYER | options
    if kind == "Transformer":
        return library.Transformer(8, 2, 2, 1, **options)
    if kind in ("TransformerEncoder", "TransformerDecoder"):
        layer = getattr(library, f"{kind}Layer")(8, 2, **options)
        extra = {"enable_nested_tensor": False} if kind == "TransformerEncoder" else {}
        return getattr(library, kind)(layer, 2, norm=library.LayerNorm(8), **extra)
    return getattr(library, kind)(8, 2, **options)


def turned(batch_first: bool, *arrays: Any) -> list[Any]:
    return [a.swapaxes(0, 1) for a in arrays] if batch_first else list(arrays)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:.*mismatched .* is deprecated", "ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("kind", "inputs", "masks"),
    [
        ("TransformerEncoderLayer", 1, {}),
        ("TransformerEncoderLayer", 1, {"src_mask": causal(5), "src_key_padding_mask": SRC_PADDING}),
        ("TransformerEncoder", 1, {"src_key_padding_mask": SRC_PADDING}),
        ("TransformerEncoder", 1, {"mask": causal(5), "is_causal": True}),
        ("TransformerDecoderLayer", 2, {}),
        ("TransformerDecoderLayer", 2, {"tgt_mask": causal(4), "memory_key_padding_mask": SRC_PADDING}),
        ("TransformerDecoder", 2, {"tgt_mask": causal(4), "tgt_is_causal": True, "memory_mask": draw(4, 5)}),
        ("Transformer", 2, {"tgt_mask": causal(4), "src_key_padding_mask": SRC_PADDING}),
    ],
)
def test_parity(options: dict[str, Any], kind: str, inputs: int, masks: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = build(nn, kind, options), build(torch.nn, kind, options)
    ours.double()
    theirs.double()
    assert repr(ours) == repr(theirs)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for value in state.values():
            value.copy_(torch.from_numpy(0.4 * rng.standard_normal(tuple(value.shape))))
    ours.load_state_dict({name: value.numpy() for name, value in state.items()})
    arrays = (TGT, SRC) if "Decoder" in kind else (SRC, TGT)
    arrays = turned(options.get("batch_first", False), *arrays)[:inputs]
    mine = [distgrad.tensor(a, requires_grad=True) for a in arrays]
    other = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = ours(*mine, **{k: distgrad.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()})
    expected = theirs(*other, **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()})
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-10, atol=1e-11)
    gradient = rng.standard_normal(tuple(out.shape))
    out.backward(distgrad.tensor(gradient))
    expected.backward(torch.tensor(gradient))
    for x, y in zip(mine, other, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-9, atol=1e-10)
    for (name, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-10, err_msg=name)


def test_activation_is_a_name_a_function_or_a_layer() -> None:
    assert nn.TransformerEncoderLayer(4, 2, 3, activation="gelu").activation is F.gelu
    assert nn.TransformerDecoderLayer(4, 2, 3, activation=F.silu).activation is F.silu
    layer = nn.TransformerEncoderLayer(4, 2, 3, activation=nn.GELU())
    assert "(activation): GELU(approximate='none')" in repr(layer)
    with pytest.raises(RuntimeError, match="activation should be relu/gelu, not silu"):
        nn.TransformerEncoderLayer(4, 2, 3, activation="silu")


def test_layers_of_a_stack_are_copies() -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 3)
    stack = nn.TransformerEncoder(layer, 2)
    first, second = stack.layers
    assert first is not layer and first is not second
    assert distgrad.equal(first.linear1.weight, second.linear1.weight)
    assert first.linear1.weight is not second.linear1.weight
    assert stack.norm is None and len(list(stack.parameters())) == 2 * len(list(layer.parameters()))


def test_dropout_in_training_only() -> None:
    distgrad.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 6, dropout=0.5)
    src, tgt = distgrad.randn(3, 2, 8), distgrad.randn(4, 2, 8)
    assert not distgrad.equal(model(src, tgt), model(src, tgt))
    model.eval()
    assert distgrad.equal(model(src, tgt), model(src, tgt))
    assert model(src[:, 0], tgt[:, 0]).shape == (4, 8)


@pytest.mark.parametrize(
    ("src", "tgt", "message"),
    [
        ((3, 2, 8), (3, 1, 8), "the batch number of src and tgt must be equal, but they are 2 and 1"),
        ((3, 2, 8), (3, 2, 7), "must be equal to d_model, 8, but they are 8 and 7"),
    ],
)
def test_inputs_must_fit(src: tuple[int, ...], tgt: tuple[int, ...], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        nn.Transformer(8, 2, 1, 1, 6)(distgrad.zeros(*src), distgrad.zeros(*tgt))


def test_the_causal_mask() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    inf = float("-inf")
    assert mask.tolist() == [[0.0, inf, inf], [0.0, 0.0, inf], [0.0, 0.0, 0.0]] and mask.dtype == np.float32
    assert nn.Transformer.generate_square_subsequent_mask(2, dtype=distgrad.float64).dtype == np.float64


def test_what_comes_later_changes_nothing_before_it() -> None:
    distgrad.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True).eval()
    x = distgrad.randn(1, 5, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    before = layer(x, src_mask=mask, is_causal=True)
    y = x.clone()
    y[0, 3:] = 7.0
    after = layer(y, src_mask=mask, is_causal=True)
    assert distgrad.equal(before[:, :3], after[:, :3]) and not distgrad.equal(before[:, 3:], after[:, 3:])


def test_training_a_small_one() -> None:
    """To copy a sequence takes looking at the right places."""
    distgrad.manual_seed(3)
    embed, model, out = nn.Embedding(6, 16), nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0), nn.Linear(16, 6)
    places = nn.Parameter(distgrad.randn(4, 1, 16))
    optimizer = distgrad.optim.SGD([*embed.parameters(), *model.parameters(), *out.parameters(), places], 0.3)
    tokens = distgrad.randint(0, 6, (4, 64))
    loss: Callable[..., Any] = nn.CrossEntropyLoss()
    losses = []
    for _ in range(80):
        logits = out(model(embed(tokens) + places))
        value = loss(logits.flatten(0, 1), tokens.flip(0).flatten())
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(value.item())
    assert losses[0] > 1.5 and losses[-1] < 0.2
