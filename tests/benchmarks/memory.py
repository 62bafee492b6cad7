"""Peak memory of one training step of ResNet-18, in distgrad and in PyTorch.

The step is zero_grad, forward, cross entropy, backward and SGD with momentum. Each measurement is a process of its own
with one thread. What both hold before the step (the library, parameters, buffers, momentum, the batch) is not counted:
a first step on two tiny images with a learning rate of zero has loaded all code and made the optimizer's state, and the
memory it freed has gone back to the system. What is counted is the peak of the resident memory during the step less the
resident memory before it: activations, gradients, workspaces, and what the allocator keeps between them.

Every run is repeated under the same settings of glibc's allocator for both, and each library is given its best.

    python tests/benchmarks/memory.py                       64x64 and 224x224, batch 32
    python tests/benchmarks/memory.py --size 64 --trace     what is alive at the peak in distgrad, by line
"""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Case, Unavailable

LIBRARIES = ("distgrad", "torch")
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "mmap from 64 KiB": {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000", "MALLOC_TOP_PAD_": "0"},
    "mmap from 1 MiB": {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"},
}
MIB = 1024 * 1024
CLASSES = 1000


# ------------------------------------------------------------------------------------------------- what is in a process


class Training:
    """A model, its optimizer and a batch of one library."""

    def __init__(self, library: str) -> None:
        self.library = library
        if library == "distgrad":
            import distgrad as module
            from distgrad.models import resnet18
        else:
            import torch as module

            resnet18 = harness.load(Path(__file__).resolve().parents[1] / "parity" / "torch_resnet.py").resnet18
            module.set_num_threads(1)
        self.module: Any = module
        self.model = resnet18(num_classes=CLASSES)
        self.optimizer = module.optim.SGD(self.model.parameters(), lr=0.0, momentum=0.9)
        self.loss = module.nn.CrossEntropyLoss()
        random = np.random.default_rng(0)
        with module.no_grad():
            for name, parameter in self.model.named_parameters():  # the same values in both
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.ndim > 1:
                    scale = np.sqrt(2 / np.prod(parameter.shape[1:]))
                    values = random.standard_normal(tuple(parameter.shape), np.float32) * np.float32(scale)
                    parameter.copy_(self._from(values))

    def _from(self, array: np.ndarray) -> Any:
        return self.module.from_numpy(array)

    def batch(self, images: int, size: int) -> tuple[Any, Any]:
        """Random images and labels, the same in both libraries."""
        random = np.random.default_rng(1)
        inputs = random.standard_normal((images, 3, size, size), np.float32)
        return self._from(inputs), self._from(random.integers(0, CLASSES, images))

    def step(self, inputs: Any, labels: Any) -> float:
        """One training step; its loss."""
        self.optimizer.zero_grad()
        loss = self.loss(self.model(inputs), labels)
        loss.backward()
        self.optimizer.step()
        return float(loss.item())

    def ready(self, images: int, size: int) -> tuple[Any, Any]:
        """The batch, with all that is not counted done."""
        batch = self.batch(images, size)
        self.step(*self.batch(2, 32))
        self.optimizer.zero_grad()
        self.optimizer.param_groups[0]["lr"] = 0.01
        gc.collect()
        _trim()
        return batch

    def gradient_norm(self) -> float:
        """The length of all gradients together, to compare."""
        return float(sum(float((parameter.grad**2).sum()) for parameter in self.model.parameters())) ** 0.5


def measure(library: str, images: int, size: int, compiled: bool = False) -> dict[str, float]:
    """One step in this process: bytes before and at the peak, seconds, loss and the length of the gradient."""
    training = Training(library)
    if compiled:
        training.model = training.module.compile(training.model)
    inputs, labels = training.ready(images, size)
    resettable = _reset_peak()
    before = _resident()
    start = time.perf_counter()
    loss = training.step(inputs, labels)
    seconds = time.perf_counter() - start
    peak = _status("VmHWM") if resettable else _highest()
    return {"before": before, "peak": peak, "seconds": seconds, "loss": loss, "gradient": training.gradient_norm()}


def _trim() -> None:
    """Gives freed memory back to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _reset_peak() -> bool:
    """Lets the kernel's high-water mark begin anew; False where it can't, and the mark of the whole process is used."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def _highest() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _resident() -> int:
    try:
        return _status("VmRSS")
    except OSError:
        return _highest()


def subjects(library: str) -> dict[str, Case]:
    """What a worker can be asked for: one measurement, "images x size"."""
    if library == "torch":
        import torch  # noqa: F401 - says now that it is not installed
    return {
        f"{images}x{size}": Case(lambda images=images, size=size: measure(library, images, size))
        for images in (2, 4, 8, 16, 32, 64)
        for size in (32, 64, 128, 224)
    }


# ----------------------------------------------------------------------------------------------------------- comparison


def run_once(library: str, case: str, environ: dict[str, str]) -> dict[str, float]:
    """One measurement in a fresh process."""
    worker = harness.Worker(Path(__file__).resolve(), library, environ=environ)
    try:
        worker.start()
        result: dict[str, float] = worker.ask("run", case)
        return result
    finally:
        worker.stop()


def compare(arguments: Any) -> int:
    """Measures, prints and writes; 1 where the two libraries computed something else."""
    harness.heading(
        f"Peak memory of one ResNet-18 training step, batch {arguments.batch}: MiB above what is held before"
    )
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    summary: dict[str, float] = {}
    for size in arguments.size:
        case = f"{arguments.batch}x{size}"
        best: dict[str, float] = {}
        for setting in arguments.setting:
            runs: dict[str, list[dict[str, float]]] = {library: [] for library in arguments.libraries}
            for _ in range(arguments.repeats):
                for library in arguments.libraries:  # in turn, as the machine's state may change
                    try:
                        runs[library].append(run_once(library, case, SETTINGS[setting]))
                    except Unavailable as error:
                        print(f"skipped: {library}: {error}")
            line = f"{size}x{size}, {setting:18}"
            medians: dict[str, float] = {}
            for library, results in runs.items():
                if not results:
                    continue
                extra = [(result["peak"] - result["before"]) / MIB for result in results]
                medians[library] = statistics.median(extra)
                best[library] = min(best.get(library, float("inf")), medians[library])
                seconds = statistics.median(result["seconds"] for result in results)
                line += f"  {library} {medians[library]:8.1f} [{min(extra):.1f}-{max(extra):.1f}] in {seconds:5.2f} s"
                rows.append({"size": size, "setting": setting, "library": library, "mib": extra, "runs": results})
            if len(medians) == 2:
                line += f"  ratio {medians['distgrad'] / medians['torch']:.2f}"
                wrong += disagreements(line, runs)
            print(line, flush=True)
        if len(best) == 2:
            ratio = summary[f"{size}: ratio"] = best["distgrad"] / best["torch"]
            ours, theirs = f"distgrad {best['distgrad']:.1f} MiB", f"PyTorch {best['torch']:.1f} MiB"
            print(f"{size}x{size}, each at its best: {ours}, {theirs}, ratio {ratio:.2f}\n", flush=True)
    for sentence in wrong:
        print(f"WRONG: {sentence}")
    content = {"benchmark": "memory", "batch": arguments.batch, "settings": SETTINGS, "runs": rows, "summary": summary}
    harness.write_json(arguments.json, content | {"wrong": wrong})
    return 1 if wrong else 0


def disagreements(case: str, runs: dict[str, list[dict[str, float]]]) -> list[str]:
    """Where the step was another computation in the two libraries."""
    found = []
    for what in ("loss", "gradient"):
        ours, theirs = (runs[library][0][what] for library in LIBRARIES)
        if abs(ours - theirs) > 1e-3 * abs(theirs):
            found.append(f"{case}: {what} {ours} in distgrad and {theirs} in PyTorch")
    return found


# ---------------------------------------------------------------------------------------------------------------- trace


def trace(arguments: Any) -> int:
    """Prints what is alive at distgrad's peak, by the line that allocated it."""
    for size in arguments.size:
        training = Training("distgrad")
        batch = training.ready(arguments.batch, size)
        tracemalloc.start(12)
        held, _ = tracemalloc.get_traced_memory()
        # Two steps: one to find the moment of the peak, counted in lines executed, one to look at it. The parameters
        # change in between, the allocations do not.
        moment, _ = _watch(training, batch, None)
        training.optimizer.zero_grad()
        _, snapshot = _watch(training, batch, moment)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert snapshot is not None
        alive = sum(item.size for item in snapshot.traces) - held
        print(
            f"{size}x{size}, batch {arguments.batch}: {alive / MIB:.1f} MiB alive at the worst line, "
            f"{(peak - held) / MIB:.1f} MiB at the peak inside it"
        )
        sizes: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for item in snapshot.traces:
            place = _place(item.traceback)
            sizes[place] += item.size
            counts[place] += 1
        for place, total in sizes.most_common(arguments.lines):
            print(f"  {total / MIB:8.1f} MiB in {counts[place]:6} blocks  {place}")
    return 0


def _watch(training: Training, batch: tuple[Any, Any], moment: int | None) -> tuple[int, tracemalloc.Snapshot | None]:
    """Takes a step line by line: the line at which most is alive, or at line ``moment`` a snapshot."""
    count, most, at = 0, 0, 0
    snapshot: tracemalloc.Snapshot | None = None

    def tracer(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count, most, at, snapshot
        count += 1
        if moment is None:
            current = tracemalloc.get_traced_memory()[0]
            if current > most:
                most, at = current, count
        elif count == moment:
            snapshot = tracemalloc.take_snapshot()
        return tracer

    sys.settrace(tracer)
    try:
        training.step(*batch)
    finally:
        sys.settrace(None)
    return at, snapshot


def _place(traceback: tracemalloc.Traceback) -> str:
    """The innermost lines of distgrad, innermost first."""
    frames = [frame for frame in reversed(traceback) if "/distgrad/" in frame.filename.replace("\\", "/")]
    names = ["/".join(Path(frame.filename).parts[-2:]) + f":{frame.lineno}" for frame in frames[:3]]
    return " < ".join(names) or f"{traceback[-1].filename}:{traceback[-1].lineno}"


def main() -> int:
    """Reads the command line."""
    parser = harness.parser(__doc__)
    parser.add_argument("--size", type=int, nargs="*", default=[64, 224], help="pixels a side (default: 64 224)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (default: 32)")
    parser.add_argument("--libraries", nargs="*", default=LIBRARIES, choices=LIBRARIES, help="default: both")
    parser.add_argument("--repeats", type=int, default=3, help="processes a figure (default: 3)")
    parser.add_argument("--setting", nargs="*", default=list(SETTINGS), choices=list(SETTINGS), help="of the allocator")
    parser.add_argument("--trace", action="store_true", help="what is alive at distgrad's peak, by line")
    parser.add_argument("--lines", type=int, default=25, help="how many lines --trace prints")
    arguments = parser.parse_args()
    return trace(arguments) if arguments.trace else compare(arguments)


if __name__ == "__main__":
    sys.exit(main())
