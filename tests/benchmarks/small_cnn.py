"""A training step of a small convolutional network in distgrad, MyGrad and, where it can be installed, PyDTNN.

Two 3x3 convolutions with ReLU and max-pooling and a linear layer on photos of 32 pixels, cross entropy, plain SGD: what
libraries that calculate with NumPy can express. Single core; loss and the change of every parameter are compared before
anything is timed. PyDTNN's releases ask for Python 3.13; it is named as skipped, with the reason.

    python tests/benchmarks/small_cnn.py                        every batch size
"""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contest
import numpy as np
from harness import Case, Unavailable
from report import Report

CHANNELS, CLASSES, SIDE = (16, 32), 10, 32
SHAPES = {
    "0.weight": (CHANNELS[0], 3, 3, 3),
    "3.weight": (CHANNELS[1], CHANNELS[0], 3, 3),
    "7.weight": (CLASSES, CHANNELS[1] * (SIDE // 4) ** 2),
}


@dataclass(frozen=True)
class Setting:
    """A case: a training step on so many photos."""

    batch: int
    goal: float | None = None
    tolerance: float = 1e-3

    @property
    def name(self) -> str:
        """What the case is called."""
        return f"small network training {SIDE}px batch {self.batch}"


SETTINGS = [Setting(batch) for batch in (1, 8, 32, 128)]


def parameters() -> dict[str, np.ndarray]:
    """The first values, the same for all libraries."""
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        for name, shape in SHAPES.items()
    }


def photos(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch and its labels."""
    random = np.random.default_rng(1)
    return random.standard_normal((batch, 3, SIDE, SIDE), np.float32), random.integers(0, CLASSES, batch)


class Distgrad:
    """The network of distgrad's layers."""

    def __init__(self, subject: str, setting: Setting) -> None:
        import distgrad

        nn, self.library = distgrad.nn, distgrad
        self.model = nn.Sequential(
            nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(*CHANNELS, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(CHANNELS[1] * (SIDE // 4) ** 2, CLASSES, bias=False),
        )
        self.model.load_state_dict({name: distgrad.from_numpy(array) for name, array in parameters().items()})
        self.inputs, self.labels = (distgrad.from_numpy(array) for array in photos(setting.batch))
        self.call: Any = self.model if subject == "distgrad eager" else distgrad.compile(self.model)
        self.optimizer = distgrad.optim.SGD(self.model.parameters(), lr=0.1)

    def run(self) -> Any:
        """One training step."""
        self.optimizer.zero_grad()
        loss = self.library.nn.functional.cross_entropy(self.call(self.inputs), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def values(self) -> dict[str, np.ndarray]:
        """The loss, and the change of every parameter, which is taken back."""
        loss = self.run().detach().numpy()
        found = {name: value.numpy() - parameters()[name] for name, value in self.model.state_dict().items()}
        self.model.load_state_dict({name: self.library.from_numpy(array) for name, array in parameters().items()})
        self.optimizer.param_groups[0]["lr"] = 1e-6
        return {"loss": loss, **found}


class MyGrad:
    """The network of MyGrad's functions, its guard against writing into arrays off, as it advises for speed."""

    def __init__(self, subject: str, setting: Setting) -> None:
        import mygrad

        mygrad.turn_memory_guarding_off()
        self.parameters = {name: mygrad.tensor(array) for name, array in parameters().items()}
        inputs, self.labels = photos(setting.batch)
        self.inputs = mygrad.tensor(inputs, constant=True)
        self.rate = np.float32(0.1)

    def run(self) -> Any:
        """One training step."""
        from mygrad.nnet.activations import relu
        from mygrad.nnet.layers import conv_nd, max_pool
        from mygrad.nnet.losses import softmax_crossentropy

        first, second, last = self.parameters.values()
        for parameter in (first, second, last):
            parameter.null_grad()
        x = max_pool(relu(conv_nd(self.inputs, first, stride=1, padding=1)), pool=(2, 2), stride=2)
        x = max_pool(relu(conv_nd(x, second, stride=1, padding=1)), pool=(2, 2), stride=2)
        loss = softmax_crossentropy(x.reshape(len(self.labels), -1) @ last.T, self.labels)
        loss.backward()
        for parameter in (first, second, last):
            parameter.data -= self.rate * parameter.grad
        return loss

    def values(self) -> dict[str, np.ndarray]:
        """The loss, and the change of every parameter, which is taken back."""
        loss = np.asarray(self.run().data)
        start = parameters()
        found = {name: parameter.data - start[name] for name, parameter in self.parameters.items()}
        for name, parameter in self.parameters.items():
            parameter.data[...] = start[name]
        self.rate = np.float32(1e-6)
        return {"loss": loss, **found}


SUBJECTS = ("distgrad eager", "distgrad compiled", "mygrad", "pydtnn")


def subjects(subject: str) -> dict[str, Case]:
    """The cases of one library."""
    if subject == "pydtnn":
        raise Unavailable(without_pydtnn())
    return contest.subjects(subject, SETTINGS, MyGrad if subject == "mygrad" else Distgrad)


def without_pydtnn() -> str:
    """Why there is no figure of PyDTNN."""
    try:
        version = importlib.metadata.version("pydtnn")
    except importlib.metadata.PackageNotFoundError:
        here = ".".join(str(number) for number in sys.version_info[:2])
        return f"every release on the package index asks for Python 3.13, and this is {here}"
    return f"version {version} is installed, but its step could not be tried with the Python that this was written for"


def compare(arguments: Any) -> int:
    """Measures, prints and writes; 1 where results differed."""
    report = Report("small_cnn", "A small network: how many times as fast as MyGrad on one core")
    chosen = [setting for setting in SETTINGS if arguments.only in setting.name]
    if arguments.quick:
        chosen = [setting for setting in chosen if setting.batch <= 8]
    contest.compare(Path(__file__).resolve(), chosen, "mygrad", report, arguments)
    return report.finish(arguments.output, clock=arguments.clock)


if __name__ == "__main__":
    sys.exit(compare(contest.parse(contest.parser(__doc__, SUBJECTS, rounds=5, seconds=0.1))))
