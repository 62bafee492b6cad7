"""Max pooling in one pass over memory, and its adjoint, which gathers for each pixel what its windows send it.

As ``pixel_pooling``, the reference: of equal maxima the first tap is chosen, a NaN beats every number, a later one an
earlier one. Images have runs of ``N*C`` contiguous numbers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .code import INT, POINTER, Code, Value
from .machine import compiled, lanes, machine
from .tile_transform import address

FloatArray = NDArray[Any]
Window = tuple[tuple[int, int], ...]  # kernel size, stride, padding, dilation

# Fewer numbers than this are not worth a call.
_LEAST = 1 << 12
_FORWARD = [
    ("x", POINTER),
    ("out", POINTER),
    ("chosen", POINTER),
    ("windows", POINTER),
    ("count", INT),
    ("taps", POINTER),
    ("run", INT),
]
_BACKWARD = [
    ("grad", POINTER),
    ("chosen", POINTER),
    ("out", POINTER),
    ("pixels", POINTER),
    ("count", INT),
    ("sources", POINTER),
    ("run", INT),
]


def takes(images: FloatArray, places: NDArray[Any] | None) -> bool:
    """Whether images (H, W, run) can be pooled here: floats, in whole vectors, with places of a byte."""
    return (
        images.size >= _LEAST
        and images.dtype in (np.float32, np.float64)
        and machine() is not None
        and (places is None or places.dtype == np.uint8)
        and images.shape[2] % lanes(images.dtype) == 0
    )


def max_pool(x: FloatArray, out: FloatArray, places: NDArray[Any] | None, window: Window) -> None:
    """Writes the maximum of each window, and the number of its tap.

    Args:
        x: (H, W, run).
        out: (Ho, Wo, run).
        places: (Ho, Wo, run), uint8, or None.
        window: kernel size, stride, padding and dilation, as ``pixel_pooling.Window``.
    """
    of_places = (0, 0) if places is None else places.strides[:2]
    windows, taps = _windows(window, x.shape[:2], out.shape[:2], x.strides[:2], out.strides[:2], of_places)
    _forward(out.dtype, places is not None)(
        address(x), address(out), 0 if places is None else address(places), address(windows), len(windows),
        address(taps), x.shape[2],
    )  # fmt: skip


def max_pool_backward(grad: FloatArray, places: NDArray[Any], out: FloatArray, window: Window) -> None:
    """Writes, for each pixel, the sum of the gradients of those windows whose maximum it was.

    Args:
        grad: (Ho, Wo, run).
        places: (Ho, Wo, run), uint8.
        out: (H, W, run).
        window: as in ``max_pool``.
    """
    pixels, sources = _pixels(
        window, out.shape[:2], grad.shape[:2], out.strides[:2], grad.strides[:2], places.strides[:2]
    )
    _backward(grad.dtype)(
        address(grad), address(places), address(out), address(pixels), len(pixels), address(sources), out.shape[2]
    )


@lru_cache(maxsize=16)
def _forward(dtype: np.dtype[Any], places: bool) -> Any:
    return compiled(_FORWARD, dtype, _write_forward, places)


@lru_cache(maxsize=8)
def _backward(dtype: np.dtype[Any]) -> Any:
    return compiled(_BACKWARD, dtype, _write_backward)


def _write_forward(code: Code, places: bool) -> None:
    a = code.arguments
    numbers = f"<{code.lanes} x i64>" if code.item == 8 else f"<{code.lanes} x i32>"
    small = f"<{code.lanes} x i8>"
    with code.loop(0, a["count"]) as number:
        window = code.at(a["windows"], number * 40)
        source, target, mark, first, last = (code.load(code.at(window, 8 * entry), INT) for entry in range(5))
        with code.loop(0, a["run"], code.lanes) as lane:
            x = lane * code.item
            begin = code.at(code.at(a["x"], source), x)
            tap = code.at(a["taps"], first)
            best = code.variable(code.load(code.at(begin, code.load(tap, INT))))
            chosen = code.variable(_numbers(code, code.load(code.at(tap, 8), INT), numbers))
            with code.loop(first + 16, last, 16) as entry:
                tap = code.at(a["taps"], entry)
                value = code.load(code.at(begin, code.load(tap, INT)))
                known = best.get()
                better = code.compare("ogt", value, known) | code.compare("uno", value, value)
                best.set(code.select(better, value, known))
                if places:
                    mine = _numbers(code, code.load(code.at(tap, 8), INT), numbers)
                    chosen.set(code.select(better, mine, chosen.get()))
            code.store(best.get(), code.at(code.at(a["out"], target), x))
            if places:
                narrow = code.emit(small, f"trunc {numbers} {chosen.get().name} to {small}")
                code.store(narrow, code.at(code.at(a["chosen"], mark), lane))


def _numbers(code: Code, number: Value, kind: str) -> Value:
    if code.item == 4:
        number = code.emit("i32", f"trunc i64 {number.name} to i32")
    found = code.spread(number)
    assert found.type == kind
    return found


def _write_backward(code: Code) -> None:
    a = code.arguments
    small = f"<{code.lanes} x i8>"
    with code.loop(0, a["count"]) as number:
        pixel = code.at(a["pixels"], number * 24)
        target, first, last = (code.load(code.at(pixel, 8 * entry), INT) for entry in range(3))
        with code.loop(0, a["run"], code.lanes) as lane:
            x = lane * code.item
            total = code.variable(code.zeros())
            with code.loop(first, last, 24) as entry:
                source = code.at(a["sources"], entry)
                of_grad, of_place, tap = (code.load(code.at(source, 8 * field), INT) for field in range(3))
                grad = code.load(code.at(code.at(a["grad"], of_grad), x))
                place = code.load(code.at(code.at(a["chosen"], of_place), lane), small)
                mine = code.spread(code.emit("i8", f"trunc i64 {tap.name} to i8"))
                passed = code.select(code.compare("eq", place, mine), grad, code.zeros())
                total.set(total.get() + passed)
            code.store(total.get(), code.at(code.at(a["out"], target), x))


Size = tuple[int, ...]


def _reached(window: Window, axis: int, size: int, count: int) -> list[list[tuple[int, int]]]:
    """For each window of one dimension its taps in the image: their number, and the pixel."""
    kernel, stride, padding, dilation = (values[axis] for values in window)
    found = []
    for number in range(count):
        start = number * stride - padding
        taps = [(tap, start + tap * dilation) for tap in range(kernel)]
        found.append([(tap, pixel) for tap, pixel in taps if 0 <= pixel < size])
    return found


@lru_cache(maxsize=128)
def _windows(
    window: Window, size: Size, counts: Size, strides: Size, out_strides: Size, place_strides: Size
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Windows: their distance in the image (of its first tap), the output and the places, the bytes of their taps in
    the second table; taps: distance from the window's first, and number."""
    down, across = (_reached(window, axis, size[axis], counts[axis]) for axis in range(2))
    width = window[0][1]
    lists: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
    taps: list[tuple[int, int]] = []
    windows = []
    for row, rows in enumerate(down):
        for col, cols in enumerate(across):
            top, left = rows[0][1], cols[0][1]
            seen = tuple(
                ((y - top) * strides[0] + (x - left) * strides[1], i * width + j) for i, y in rows for j, x in cols
            )
            if seen not in lists:
                lists[seen] = 16 * len(taps), 16 * (len(taps) + len(seen))
                taps += seen
            windows.append(
                (
                    top * strides[0] + left * strides[1],
                    row * out_strides[0] + col * out_strides[1],
                    row * place_strides[0] + col * place_strides[1],
                    *lists[seen],
                )
            )
    return np.array(windows, np.int64).reshape(-1, 5), np.array(taps, np.int64).reshape(-1, 2)


@lru_cache(maxsize=128)
def _pixels(
    window: Window, size: Size, counts: Size, out_strides: Size, grad_strides: Size, place_strides: Size
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels: their distance, and the bytes of their windows in the second table; windows: distance in the gradient and
    in the places, and the tap by which they see the pixel."""
    seen: list[list[list[tuple[int, int]]]] = []
    for axis in range(2):
        by_pixel: list[list[tuple[int, int]]] = [[] for _ in range(size[axis])]
        for number, taps in enumerate(_reached(window, axis, size[axis], counts[axis])):
            for tap, pixel in taps:
                by_pixel[pixel].append((number, tap))
        seen.append(by_pixel)
    width = window[0][1]
    pixels: list[tuple[int, int, int]] = []
    sources: list[tuple[int, int, int]] = []
    for y, rows in enumerate(seen[0]):
        for x, cols in enumerate(seen[1]):
            first = len(sources)
            for row, i in rows:
                for col, j in cols:
                    sources.append(
                        (
                            row * grad_strides[0] + col * grad_strides[1],
                            row * place_strides[0] + col * place_strides[1],
                            i * width + j,
                        )
                    )
            pixels.append((y * out_strides[0] + x * out_strides[1], 24 * first, 24 * len(sources)))
    return np.array(pixels, np.int64).reshape(-1, 3), np.array(sources, np.int64).reshape(-1, 3)
