"""Where the microseconds of distgrad go: what ``overhead.py --profile`` prints.

Each layer is measured alone, by programs that have one layer more than the last: NumPy's own calls, tensors, dispatch,
recording; then the VJPs and the traversal. After that the functions, by their own time.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import Case, heading, write_json
from libraries import Distgrad, Numpy
from programs import programs, subjects


def profile(json: Path | None, only: str, rounds: int, seconds: float) -> int:
    """Where distgrad's microseconds go: each layer measured alone, and the functions by their own time."""
    heading("Where the microseconds of distgrad go (each an operation)")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tables: dict[str, dict[str, float]] = {}
    cases = subjects("distgrad")
    for title in ("chain-16", "chain-128", "chain-1024", "scalar-loop", "views"):
        if only in title:
            tables[title] = layers(title, cases, rounds, seconds)
    names = list(next(iter(tables.values()), {}))
    print(f"{'':46}" + "".join(f"{title:>13}" for title in tables))
    for name in names:
        print(f"{name:46}" + "".join(f"{tables[title][name]:13.3f}" for title in tables))
    for title in [title for title in tables if title in ("chain-16", "views")]:
        print(f"\n{title} forward+backward: functions by their own time (the profiler's own cost included)")
        by_function(cases[f"{title} forward+backward"])
    write_json(json, {"benchmark": "overhead-profile", "layers": tables})
    return 0


def layers(title: str, cases: dict[str, Case], rounds: int, seconds: float) -> dict[str, float]:
    """Microseconds an operation of each layer, by measuring programs that have one layer more than the last."""
    from distgrad import Tensor

    program, operations, constants, variables = programs()[title]
    library = Distgrad()
    backward_arithmetic = {"chain": _chain_backward, "recurrence": _recurrence_backward}.get(program.__name__)
    leaves = [library.module.tensor(array, requires_grad=True) for array in variables]
    loss = program(library, *(library.module.tensor(array) for array in constants), *leaves)
    order = _topological(loss.grad_fn)
    array = np.ones((), np.float32)

    arithmetic = Numpy()
    floor = [np.asarray(x) for x in (*constants, *variables)]
    measured = {
        "numpy": lambda: program(arithmetic, *floor),
        "tensor": lambda: [Tensor(array) for _ in range(operations)],
        "no_grad": cases[f"{title} no_grad"].run,
        "forward": cases[f"{title} forward"].run,
        "training": cases[f"{title} forward+backward"].run,
        "backward": lambda: loss.backward(retain_graph=True),
        "apply": lambda: _apply_all(order),
    }
    if backward_arithmetic is not None:
        measured["vjp"] = lambda: backward_arithmetic(*floor)
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, run in measured.items():
            run()
            begin = time.process_time()
            count = 0
            while time.process_time() - begin < seconds:
                run()
                count += 1
            taken[name].append((time.process_time() - begin) / count / operations * 1e6)
    time_of = {name: statistics.median(values) for name, values in taken.items()}
    vjp = time_of.get("vjp", float("nan"))
    return {
        "forward: NumPy's own calls": time_of["numpy"],
        "forward: one Tensor object": time_of["tensor"],
        "forward: dispatch (the rest without recording)": time_of["no_grad"] - time_of["numpy"] - time_of["tensor"],
        "forward: recording": time_of["forward"] - time_of["no_grad"],
        "forward, all": time_of["forward"],
        "backward: NumPy's own calls": vjp,
        "backward: VJPs, saved values (rest of apply)": time_of["apply"] - (0.0 if np.isnan(vjp) else vjp),
        "backward: traversal, sums, leaves": time_of["backward"] - time_of["apply"],
        "backward, all": time_of["backward"],
        "forward+backward": time_of["training"],
    }


def _topological(root: Any) -> list[tuple[Any, Any]]:
    """The nodes of a program whose operations have one result each, users first, and a gradient for each."""
    import distgrad.autograd.engine as engine

    order: list[tuple[Any, Any]] = []
    pending: dict[Any, Any] = {root: np.ones((), np.float32)}
    while pending:
        node = max(pending, key=lambda candidate: candidate.sequence)
        gradient = pending.pop(node)
        if isinstance(node, engine.AccumulateGrad):
            continue
        order.append((node, gradient))
        for edge, value in zip(node.edges, node.apply(gradient, False), strict=True):
            if edge is not None:
                pending[edge[0]] = value
    return order


def _apply_all(order: list[tuple[Any, Any]]) -> None:
    for node, gradient in order:
        node.apply(gradient, False)


def _chain_backward(x: np.ndarray, w: np.ndarray) -> None:
    """The array operations that the backward of ``chain`` cannot do without."""
    y = np.asarray(x)
    g = np.broadcast_to(np.float32(1), x.shape)
    for _ in range(25):
        g = g * 0.9
        g = g * (1 - y * y)
        g * y
        g = g * w


def _recurrence_backward(h: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Likewise of ``recurrence``."""
    g: Any = np.ones((), np.float32)
    for _ in range(200):
        g = g * (1 - h * h)
        g * h
        g = g * a


def by_function(case: Case) -> None:
    """The functions with the most time of their own."""
    case.run()
    profiler = cProfile.Profile()
    count = 50
    profiler.enable()
    for _ in range(count):
        case.run()
    profiler.disable()
    statistics_of: Any = pstats.Stats(profiler)
    rows = sorted(statistics_of.stats.items(), key=lambda item: -item[1][2])
    total = sum(row[2] for _, row in rows)
    for (file, number, function), (_, calls, own, _, _) in rows[:16]:
        place = f"{'/'.join(Path(file).parts[-2:])}:{number} " if number else ""
        each = count * case.operations
        print(f"  {own / total:5.1%} {own / each * 1e6:7.3f} us {calls / each:6.2f} calls  {place}{function}")
