"""The programs that ``overhead.py`` measures: many small operations, in which the library's own work is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Case
from libraries import KINDS, Library, Program, Tensors


def chain(library: Library, x: Any, w: Any) -> Any:
    """100 elementwise operations, and a sum."""
    y, tanh = x, library.tanh
    for _ in range(25):
        y = tanh(y * w + x) * 0.9
    return y.sum()


def views(library: Library, x: Any) -> Any:
    """100 views of a (4, 6) tensor, and a sum."""
    y = x
    for _ in range(25):
        y = y.reshape(6, 4).T[None][0]
    return y.sum()


def recurrence(library: Library, h: Any, a: Any, b: Any) -> Any:
    """200 steps of three operations on 0-d tensors."""
    tanh = library.tanh
    for _ in range(200):
        h = tanh(h * a + b)
    return h


def mlp(library: Library, x: Any, target: Any, w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any) -> Any:
    """Two hidden layers of width 32 and the mean square error, as plain operations: 12 of them."""
    relu = library.relu
    h = relu(x @ w1 + b1)
    h = relu(h @ w2 + b2)
    difference = h @ w3 + b3 - target
    return (difference * difference).mean()


def mlp_modules(library: Tensors, x: np.ndarray, labels: np.ndarray, weights: Sequence[np.ndarray]) -> Case:
    """The same layers as modules, with cross entropy: a training step without the optimizer's; 9 operations."""
    module: Any = library.module
    nn = module.nn
    model = nn.Sequential(
        nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10), nn.CrossEntropyLoss()
    )
    layers, loss_of = model[:-1], model[-1]
    parameters = list(layers.parameters())
    with module.no_grad():
        for parameter, array in zip(parameters, weights, strict=True):
            parameter.copy_(module.tensor(array.T.copy() if array.ndim == 2 else array))
    inputs, target = module.tensor(x), module.tensor(labels)

    def run() -> Any:
        layers.zero_grad()
        loss = loss_of(layers(inputs), target)
        loss.backward()
        return loss

    return Case(run, 9, values=lambda: [run().item(), *(parameter.grad.tolist() for parameter in parameters)])


MODES = {"no_grad": "without", "forward": "forward", "forward+backward": "training"}


def programs() -> dict[str, tuple[Program, int, list[np.ndarray], list[np.ndarray]]]:
    """By name: the program, how many operations it is, its constants and its variables."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.uniform(-0.5, 0.5, shape).astype(np.float32)

    found: dict[str, tuple[Program, int, list[np.ndarray], list[np.ndarray]]] = {
        f"chain-{size}": (chain, 101, [], [draw(size), draw(size)]) for size in (16, 128, 1024)
    }
    found["mlp"] = (mlp, 12, [draw(16, 32), draw(16, 10)], mlp_weights())
    found["scalar-loop"] = (recurrence, 600, [np.array(0.5, np.float32)], [np.array(0.9, np.float32), draw()])
    found["views"] = (views, 101, [], [draw(4, 6)])
    return found


def mlp_weights() -> list[np.ndarray]:
    """Weight and bias of three layers."""
    random = np.random.default_rng(1)
    shapes = [(32, 32), (32,), (32, 32), (32,), (32, 10), (10,)]
    return [random.uniform(-0.3, 0.3, shape).astype(np.float32) for shape in shapes]


def subjects(name: str) -> dict[str, Case]:
    """All cases of one library; what a worker measures."""
    library = KINDS[name]()
    cases: dict[str, Case] = {}
    for title, (program, operations, constants, variables) in programs().items():
        for mode, method in MODES.items():
            case = getattr(library, method)(program, constants, variables)
            if case is not None:
                case.operations = operations
                cases[f"{title} {mode}"] = case
    if isinstance(library, Tensors):
        random = np.random.default_rng(2)
        x, labels = random.standard_normal((16, 32)).astype(np.float32), random.integers(0, 10, 16)
        cases["mlp-modules forward+backward"] = mlp_modules(library, x, labels, mlp_weights())
    create = library.create
    if create is not None:
        array = np.arange(16, dtype=np.float32)
        cases["create-array"] = Case(lambda: [create(array) for _ in range(100)], 100)
        cases["create-number"] = Case(lambda: [create(1.5) for _ in range(100)], 100)
    return cases
