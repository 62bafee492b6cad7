"""How the libraries that a benchmark compares make tensors and differentiate; the programs are the same for all.

A program takes the library, then constants, then variables, and gives a scalar. It keeps to operators and methods that
all libraries have, and to ``tanh`` and ``relu`` of the library that it is given.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from harness import Case, Unavailable

# A program: the library, then constants, then variables; gives a scalar.
Program = Callable[..., Any]


class Library(ABC):
    """How one library makes tensors and differentiates. The programs themselves are the same for all."""

    tanh: Callable[[Any], Any]
    relu: Callable[[Any], Any]
    create: Callable[[Any], Any] | None = None  # a tensor from an array or a number, with a copy

    @abstractmethod
    def without(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case | None:
        """The forward alone, with recording switched off."""

    @abstractmethod
    def forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case | None:
        """The forward with recording."""

    @abstractmethod
    def training(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case | None:
        """Forward and backward to all variables."""


class Tensors(Library):
    """distgrad or PyTorch: the same program, letter by letter."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.tanh, self.relu, self.create = module.tanh, module.relu, module.tensor

    def without(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        no_grad, forward = self.module.no_grad, self._forward(program, constants, variables)[0]

        def run() -> Any:
            with no_grad():
                return forward()

        return Case(run, values=lambda: [run().item()])

    def forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        run, _ = self._forward(program, constants, variables)
        return Case(run, values=lambda: [run().item()])

    def training(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        forward, leaves = self._forward(program, constants, variables)

        def run() -> Any:
            for leaf in leaves:
                leaf.grad = None
            loss = forward()
            loss.backward()
            return loss

        return Case(run, values=lambda: [run().item(), *(leaf.grad.tolist() for leaf in leaves)])

    def _forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> tuple[Any, list[Any]]:
        fixed = [self.module.tensor(array) for array in constants]
        leaves = [self.module.tensor(array, requires_grad=True) for array in variables]
        return lambda: program(self, *fixed, *leaves), leaves


class Torch(Tensors):
    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        super().__init__(torch)


class Distgrad(Tensors):
    def __init__(self) -> None:
        import distgrad

        super().__init__(distgrad)


class Hips(Library):
    """HIPS autograd differentiates functions of arrays; outside of that its NumPy is NumPy behind a wrapper."""

    def __init__(self) -> None:
        import autograd
        import autograd.numpy as wrapped

        self.autograd = autograd
        self.tanh, self.relu = wrapped.tanh, lambda x: wrapped.maximum(x, 0)

    def without(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        return Case(
            lambda: program(self, *constants, *variables),
            values=lambda: [float(program(self, *constants, *variables))],
        )

    def forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        record = self.autograd.make_vjp(lambda leaves: program(self, *constants, *leaves))
        leaves = tuple(variables)
        return Case(lambda: record(leaves), values=lambda: [float(record(leaves)[1])])

    def training(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        count = tuple(range(len(variables)))
        differentiate = self.autograd.value_and_grad(lambda *leaves: program(self, *constants, *leaves), count)

        def values() -> list[Any]:
            loss, gradients = differentiate(*variables)
            return [float(loss), *(gradient.tolist() for gradient in gradients)]

        return Case(lambda: differentiate(*variables), values=values)


class MyGrad(Library):
    """MyGrad, with its guard against writing into arrays off, as its documentation advises for speed."""

    def __init__(self) -> None:
        import mygrad

        mygrad.turn_memory_guarding_off()
        self.mygrad = mygrad
        self.tanh, self.relu, self.create = mygrad.tanh, lambda x: mygrad.maximum(x, 0), mygrad.tensor

    def without(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        off, forward = self.mygrad.no_autodiff, self._forward(program, constants, variables)[0]

        def run() -> Any:
            with off:
                return forward()

        return Case(run, values=lambda: [run().item()])

    def forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        run, _ = self._forward(program, constants, variables)
        return Case(run, values=lambda: [run().item()])

    def training(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        forward, leaves = self._forward(program, constants, variables)

        def run() -> Any:
            for leaf in leaves:
                leaf.null_grad()
            loss = forward()
            loss.backward()
            return loss

        return Case(run, values=lambda: [run().item(), *(leaf.grad.tolist() for leaf in leaves)])

    def _forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> tuple[Any, list[Any]]:
        fixed = [self.mygrad.tensor(array, constant=True) for array in constants]
        leaves = [self.mygrad.tensor(array) for array in variables]
        return lambda: program(self, *fixed, *leaves), leaves


class Tinygrad(Library):
    """tinygrad collects operations and compiles them when a value is asked for; what it has compiled it keeps.

    It is not given its TinyJit, which replays one fixed program without looking at it again.
    """

    def __init__(self) -> None:
        compilers = [os.environ.get("CC", ""), "clang", *(f"clang-{version}" for version in range(25, 13, -1))]
        compiler = next((name for name in compilers if name and shutil.which(name) and "clang" in name), None)
        if compiler is None:
            raise Unavailable("needs a clang on PATH (or named by CC) to compile for the processor")
        os.environ["CC"], os.environ["DEV"] = compiler, "CPU"
        import tinygrad

        self.tensor = tinygrad.Tensor
        self.tanh, self.relu = tinygrad.Tensor.tanh, tinygrad.Tensor.relu

    def create(self, data: Any) -> Any:
        return self.tensor(data).realize()

    def without(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        forward, _ = self._forward(program, constants, variables)
        return Case(lambda: forward().realize(), values=lambda: [forward().item()])

    def forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> None:
        return None  # the same as without: it records nothing of its own for the backward

    def training(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        forward, leaves = self._forward(program, constants, variables)

        def run() -> Any:
            for leaf in leaves:
                leaf.grad = None
            loss = forward()
            loss.backward()
            loss.realize(*(leaf.grad for leaf in leaves))
            return loss

        return Case(run, values=lambda: [run().item(), *(leaf.grad.tolist() for leaf in leaves)])

    def _forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> tuple[Any, list[Any]]:
        # Clones, because a 0-d array would become a constant of the program, without a gradient.
        fixed = [self.tensor(array).clone().realize() for array in constants]
        leaves = [self.tensor(array).clone().realize() for array in variables]
        return lambda: program(self, *fixed, *leaves), leaves


class Numpy(Library):
    """The arithmetic alone: what nobody who calls NumPy can be faster than."""

    def __init__(self) -> None:
        self.tanh, self.relu, self.create = np.tanh, lambda x: np.maximum(x, 0), np.array

    def without(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> Case:
        return Case(
            lambda: program(self, *constants, *variables),
            values=lambda: [float(program(self, *constants, *variables))],
        )

    def forward(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> None:
        return None

    def training(self, program: Program, constants: Sequence[Any], variables: Sequence[Any]) -> None:
        return None


KINDS: dict[str, type[Library]] = {
    "distgrad": Distgrad,
    "torch": Torch,
    "autograd": Hips,
    "mygrad": MyGrad,
    "tinygrad": Tinygrad,
    "numpy": Numpy,
}
