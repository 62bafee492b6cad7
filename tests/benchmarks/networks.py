"""Whole networks, forward and training: distgrad beside PyTorch in each of its best settings.

Single core. Forward is a frozen network in evaluation mode without gradients; training is a whole step: forward in
training mode, cross entropy, backward, SGD with momentum and weight decay. distgrad is measured as it is ("eager") and
through ``distgrad.compile``; PyTorch with channels_last memory as it is, with BatchNorm folded, frozen and optimized by
torch.jit, and through torch.compile, with freezing in forward. The fastest of each side counts and all are shown. All
processes have the same allocator settings, those that suit PyTorch best: freed memory is kept.

Before a case is timed its results are compared with those of PyTorch's plain mode: the logits, and for training the
loss, every parameter's change in one step and every running statistic.

    python tests/benchmarks/networks.py                        every case
    python tests/benchmarks/networks.py --only resnet18        the cases whose names contain that
    python tests/benchmarks/networks.py --roofline             with the time of the GEMMs alone at the core's peak
    python tests/benchmarks/networks.py --quick                one round of the small cases
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import architectures
import contest
import harness
import numpy as np
import roofline
from contest import NOT_APPLICABLE
from harness import Case, Unavailable
from report import Report, Row

# Forward: the rounding of Winograd's algorithm through a whole network. Training: rounding flips the sign of single
# pre-activations near zero, and with it the gradient that passes there. In a batch of 8 small photos one flip moves the
# gradient of a bias by 2e-2 (against float64 PyTorch's by up to 5e-3); in float64 both libraries agree to 1e-13. In
# MobileNet, with its many layers and two bends an activation, PyTorch's own two modes differ by 5e-2 from one another.
FORWARD_TOLERANCE, TRAINING_TOLERANCE, MOBILENET_TOLERANCE = 1e-4, 5e-2, 0.15


@dataclass(frozen=True)
class Setting:
    """A case: which network on how many samples of how many pixels, and what it is to reach."""

    network: str
    mode: str
    batch: int
    size: int = 0
    goal: float | None = None
    eager_goal: float | None = None

    @property
    def name(self) -> str:
        """What the case is called."""
        return f"{self.network} {self.mode}{f' {self.size}px' if self.size else ''} batch {self.batch}"

    @property
    def tolerance(self) -> float:
        """By how much results may differ."""
        if self.mode == "forward":
            return FORWARD_TOLERANCE
        return MOBILENET_TOLERANCE if self.network == "mobilenet" else TRAINING_TOLERANCE


_MODES = ("forward", "training")
_OTHERS = (("vgg11", 4, 224), ("mobilenet", 16, 224), ("resnet50", 8, 224), ("transformer", 32, 0), ("mlp", 128, 0))
SETTINGS = [
    Setting("resnet18", "forward", 32, 224, goal=1.8),
    Setting("resnet18", "forward", 64, 64, goal=1.6),
    Setting("resnet18", "training", 16, 224, goal=1.5),
    Setting("resnet18", "training", 64, 64, goal=1.5, eager_goal=0.9),
    *(Setting("resnet18", mode, batch, size) for mode in _MODES for size in (224, 64) for batch in (1, 8)),
    *(Setting(network, mode, batch, size) for network, batch, size in _OTHERS for mode in _MODES),
]


# ------------------------------------------------------------------------------------------------- what is in a process


class Network:
    """One case made ready in one library and variant."""

    def __init__(self, subject: str, setting: Setting) -> None:
        self.setting = setting
        self.library = library = contest.library_of(subject)
        self.training = setting.mode == "training"
        samples, labels = architectures.inputs(setting.network, setting.batch, setting.size)
        self.samples, self.labels = library.from_numpy(samples), library.from_numpy(labels)
        self.model = architectures.build(library, setting.network)
        peer = library.__name__ == "torch"
        if peer and self.samples.ndim == 4:
            self.model = self.model.to(memory_format=library.channels_last)
            self.samples = self.samples.contiguous(memory_format=library.channels_last)
        self.model.train(self.training)
        if not self.training:
            self.model.requires_grad_(False)
        with library.set_grad_enabled(self.training):
            self.call: Callable[[Any], Any] = _VARIANTS[subject](self)
        if self.training:
            quickest = {"fused": True} if peer else {}
            self.optimizer = library.optim.SGD(
                self.model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, **quickest
            )

    def run(self) -> Any:
        """One forward, or one training step."""
        if not self.training:
            with self.library.no_grad():
                return self.call(self.samples)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.library.nn.functional.cross_entropy(self.call(self.samples), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    def values(self) -> dict[str, np.ndarray]:
        """Logits; or loss and the change of everything in the model's state, which is put back."""
        before = {name: value.numpy().copy() for name, value in self.model.state_dict().items()}
        found = {"result": self.run().detach().numpy()}
        if self.training:
            with self.library.no_grad():
                for name, value in self.model.state_dict().items():
                    if value.ndim:
                        found[name] = value.numpy() - before[name]
                    value.copy_(self.library.from_numpy(before[name]))
            self.optimizer.param_groups[0]["lr"] = 1e-6  # however many steps are timed, the numbers stay ordinary
        return found


def _compiled(network: Network) -> Any:
    if not hasattr(network.library, "compile"):
        raise Unavailable("distgrad has no compile")
    return network.library.compile(network.model)


def _folded(network: Network) -> Any:
    from torch.fx.experimental.optimization import fuse

    _only_forward(network)
    if network.setting.network not in ("resnet18", "resnet50", "mobilenet"):
        raise Unavailable(f"{NOT_APPLICABLE}: there is no BatchNorm to fold")
    return fuse(network.model).to(memory_format=network.library.channels_last)


def _frozen_jit(network: Network) -> Any:
    _only_forward(network)
    jit = network.library.jit
    model = jit.optimize_for_inference(jit.freeze(jit.trace(network.model, network.samples)))
    for _ in range(3):
        model(network.samples)  # it optimizes in its first runs
    return model


def _torch_compiled(network: Network) -> Any:
    if not any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++") if name):
        raise Unavailable("torch.compile needs a C++ compiler on PATH")
    import torch._inductor.config as inductor

    network.library._dynamo.reset()  # else the networks before count as recompilations, of which it allows eight
    inductor.freezing = not network.training
    inductor.compile_threads = 1
    return network.library.compile(network.model)


def _only_forward(network: Network) -> None:
    if network.training:
        raise Unavailable(f"{NOT_APPLICABLE}: for forward only")


_VARIANTS: dict[str, Callable[[Network], Any]] = {
    "distgrad eager": lambda network: network.model,
    "distgrad compiled": _compiled,
    "torch eager": lambda network: network.model,
    "torch folded": _folded,
    "torch jit": _frozen_jit,
    "torch compile": _torch_compiled,
}
SUBJECTS = tuple(_VARIANTS)


def subjects(subject: str) -> dict[str, Case]:
    """The cases of one library and variant."""
    return contest.subjects(subject, SETTINGS, Network)


# ----------------------------------------------------------------------------------------------------------- comparison


def compare(arguments: Any) -> int:
    """Measures, prints and writes; 1 where results differed."""
    report = Report("networks", "Networks: how many times as fast as PyTorch's best on one core")
    chosen = [setting for setting in SETTINGS if arguments.only in setting.name]
    if arguments.quick:
        chosen = [setting for setting in chosen if setting.size <= 64 and (setting.batch <= 8 or not setting.size)]
    remark = roofline_remark if arguments.roofline else lambda setting: ""
    found = contest.compare(Path(__file__).resolve(), chosen, "torch eager", report, arguments, remark)
    for setting, result in found:
        if setting.eager_goal is not None and (row := eager_row(setting, result)) is not None:
            report.add(row)
    return report.finish(arguments.output, clock=arguments.clock, allocators=arguments.allocators)


def roofline_remark(setting: Setting) -> str:
    """The time that distgrad's GEMMs alone would take at the core's peak."""
    seconds = roofline.bound(setting.network, setting.batch, setting.size, setting.mode == "training")
    return f"; GEMMs alone {1e3 * seconds:.4g}"


def eager_row(setting: Setting, result: harness.Result) -> Row | None:
    """The line of eager mode, which has its own goal."""
    ours, theirs = contest.fastest(result, "distgrad eager"), contest.fastest(result, "torch")
    if ours is None or theirs is None:
        return None
    return Row(f"{setting.name}, eager", contest.speed(result, ours, theirs), setting.eager_goal, f"eager / {theirs}")


def main() -> int:
    """Reads the command line."""
    parser = contest.parser(__doc__, SUBJECTS, rounds=5, seconds=0.1)
    parser.add_argument("--roofline", action="store_true", help="with the time of distgrad's GEMMs alone")
    return compare(contest.parse(parser))


if __name__ == "__main__":
    sys.exit(main())
