"""Models that are no ResNet: each trains here, and follows PyTorch's trajectory from the same start.

The models are written once, over the module that is given: ``distgrad`` or ``torch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distgrad

STEPS = 30
Batches = Iterator[tuple[Any, ...]]
TEXT = (Path(__file__).parent.parent.parent / "LICENSE").read_text()
LETTERS = sorted(set(TEXT))


def transformer(t: Any) -> Any:
    """The next letter of a text, from the 16 before it."""
    nn, F = t.nn, t.nn.functional

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Any, mask: Any) -> Any:
            h = self.norm1(x)
            x = x + self.attention(h, h, h, attn_mask=mask, need_weights=False)[0]
            return x + self.mlp(self.norm2(x))

    class Transformer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, letters: int, length: int, width: int = 16, heads: int = 4) -> None:
            super().__init__()
            self.letters, self.places = nn.Embedding(letters, width), nn.Embedding(length, width)
            self.blocks = nn.ModuleList([Block(width, heads) for _ in range(2)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, letters, bias=False)
            self.head.weight = self.letters.weight  # shared, as is usual
            self.register_buffer("mask", t.triu(t.ones(length, length), 1).bool(), persistent=False)

        def forward(self, tokens: Any, targets: Any) -> Any:
            x = self.letters(tokens) + self.places(t.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x, self.mask)
            logits = self.head(self.norm(x))
            return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Transformer(len(LETTERS), 16)


def transformer_batches() -> Batches:
    text = np.array([LETTERS.index(letter) for letter in TEXT])
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        starts = rng.integers(0, len(text) - 17, 8)
        windows = np.stack([text[s : s + 17] for s in starts])
        yield windows[:, :-1], windows[:, 1:]


def mlp(t: Any) -> Any:
    """Points inside a circle, and outside; with batch norm, and dropout of probability 0, since the streams differ."""
    nn, F = t.nn, t.nn.functional

    class Mlp(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(2, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.0), nn.Linear(32, 32), nn.SiLU(),
                nn.Linear(32, 1),
            )  # fmt: skip

        def forward(self, points: Any, labels: Any) -> Any:
            return F.binary_cross_entropy_with_logits(self.layers(points).squeeze(1), labels)

    return Mlp()


def mlp_batches() -> Batches:
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        points = rng.uniform(-1.5, 1.5, (64, 2))
        yield points, (np.linalg.norm(points, axis=1) < 1).astype(float)


def autoencoder(t: Any) -> Any:
    """Images of a bright square, through a narrow middle and back."""
    nn, F = t.nn, t.nn.functional

    class Autoencoder(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(
                nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.GroupNorm(2, 4), nn.ReLU(inplace=True),
                nn.Conv2d(4, 8, 3, padding=1), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
            )  # fmt: skip
            self.decoder = nn.Sequential(
                nn.ConvTranspose2d(8, 4, 2, stride=2), nn.ELU(), nn.Upsample(scale_factor=2, mode="bilinear"),
                nn.ReflectionPad2d(1), nn.Conv2d(4, 1, 3), nn.Sigmoid(),
            )  # fmt: skip

        def forward(self, images: Any) -> Any:
            return F.mse_loss(self.decoder(self.encoder(images)), images)

    return Autoencoder()


def autoencoder_batches() -> Batches:
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        images = np.zeros((8, 1, 12, 12))
        for image, (i, j) in zip(images, rng.integers(0, 8, (8, 2)), strict=True):
            image[0, i : i + 4, j : j + 4] = 1
        yield (images,)


MODELS: dict[str, tuple[Callable[[Any], Any], Callable[[], Batches], Callable[[Any, Any], Any], float]] = {
    "transformer": (
        transformer, transformer_batches, lambda t, ps: t.optim.AdamW(ps, lr=3e-3, weight_decay=0.1), 0.9,
    ),
    "mlp": (mlp, mlp_batches, lambda t, ps: t.optim.SGD(ps, lr=0.2, momentum=0.9, nesterov=True), 0.85),
    "autoencoder": (autoencoder, autoencoder_batches, lambda t, ps: t.optim.Adam(ps, lr=1e-2, amsgrad=True), 0.7),
}  # fmt: skip


def steps(t: Any, name: str, model: Any, dtype: Any, batches: Batches) -> list[float]:
    """The losses of a training loop as a user writes it."""
    optimizer = MODELS[name][2](t, model.parameters())
    schedule = t.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=STEPS)
    losses = []
    for arrays in batches:
        tensors = [t.from_numpy(a if a.dtype.kind == "i" else a.astype(dtype)) for a in arrays]
        loss = model(*tensors)
        optimizer.zero_grad()
        loss.backward()
        t.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", MODELS)
def test_it_trains(name: str) -> None:
    distgrad.manual_seed(0)
    make, batches, _, share = MODELS[name]
    losses = steps(distgrad, name, make(distgrad).train(), np.float32, batches())
    assert np.mean(losses[-5:]) < share * np.mean(losses[:3])


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", MODELS)
def test_it_follows_pytorch(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    make, batches, _, _ = MODELS[name]
    torch.manual_seed(0)
    distgrad.manual_seed(0)
    theirs = make(torch).to(torch.float64 if dtype is np.float64 else torch.float32)
    ours = make(distgrad).to(np.dtype(dtype))
    state = {key: distgrad.from_numpy(value.numpy().copy()) for key, value in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    a, b = steps(distgrad, name, ours, dtype, batches()), steps(torch, name, theirs, dtype, batches())
    apart = float(np.max(np.abs(np.array(a) - b) / np.abs(b)))
    worst = 0.0
    for key, value in theirs.state_dict().items():
        if dtype is np.float32 and key.endswith("in_proj_bias"):
            continue  # attention does not depend on the keys' bias: its gradient is rounding, which Adam makes large
        mine, other = ours.state_dict()[key].numpy().astype(float), value.numpy().astype(float)
        worst = max(worst, float(np.linalg.norm(mine - other) / max(np.linalg.norm(other), 1e-12)))
    print(f"{name} {np.dtype(dtype)}: losses {apart:.1e} apart after {STEPS} steps, parameters {worst:.1e}")
    limit = 1e-9 if dtype is np.float64 else 2e-3
    assert apart < limit and worst < limit
