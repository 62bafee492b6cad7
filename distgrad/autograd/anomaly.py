"""Anomaly mode: points at the line of the forward pass whose backward went wrong."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .engine import Node

_PACKAGE = str(Path(__file__).resolve().parent.parent)


class _Anomaly:
    """The mode, of the whole process as in PyTorch, and what it does with a node."""

    enabled = False
    check_nan = True

    def note(self) -> dict[str, Any]:
        """What a node remembers of the place where it is recorded."""
        return {"traceback_": traceback.extract_stack()[:-2]}

    def watch(self, node: Node, gradient: Any, create_graph: bool) -> Any:
        """Applies ``node``; an exception, or a NaN in what it gives, is reported with the place of its forward.

        Raises:
            RuntimeError: a gradient that the node gives contains NaN.
        """
        try:
            produced = node.apply(gradient, create_graph)
        except Exception as error:
            error.add_note(self._place(node))
            raise
        for number, value in enumerate(produced if self.check_nan else ()):
            array = getattr(value, "_data", value)
            if array is not None and array.dtype.kind == "f" and np.isnan(array).any():
                raise RuntimeError(
                    f"Function {node.name()!r} returned nan values in its {number}th output. {self._place(node)}"
                )
        return produced

    def _place(self, node: Node) -> str:
        stack = node.metadata.get("traceback_")
        if stack is None:
            return (
                f"No forward pass information is available for {node.name()}: enable detect_anomaly during the forward "
                "pass too."
            )
        # the innermost line that is not the framework's own
        line = next((frame for frame in reversed(stack) if not frame.filename.startswith(_PACKAGE)), stack[-1])
        return (
            f"The forward call that recorded {node.name()} is\n"
            f"  {line.filename}:{line.lineno}, in {line.name}: {line.line}\n"
            "Traceback of the forward call (most recent call last):\n" + "".join(traceback.format_list(stack))
        )


anomaly = _Anomaly()


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on."""
    return anomaly.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly mode looks for NaN."""
    return anomaly.check_nan


class set_detect_anomaly:
    """Anomaly mode on or off, at once when called as a function, or for a ``with`` block.

    Args:
        mode: whether to note where operations are recorded, and to watch their backward.
        check_nan: whether a NaN in a gradient raises.
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self._before = (anomaly.enabled, anomaly.check_nan)
        anomaly.enabled, anomaly.check_nan = bool(mode), bool(check_nan)

    def __enter__(self) -> None:
        """It is on since the call."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        anomaly.enabled, anomaly.check_nan = self._before


class detect_anomaly:
    """A ``with`` block in which a backward that fails, or gives NaN, names the line of its forward; it is slow.

    The block has to contain the forward pass, so that there is something to name.

    Args:
        check_nan: whether a NaN in a gradient raises.
    """

    def __init__(self, check_nan: bool = True) -> None:
        self._check_nan = check_nan
        self._before = (False, True)

    def __enter__(self) -> None:
        self._before = (anomaly.enabled, anomaly.check_nan)
        anomaly.enabled, anomaly.check_nan = True, self._check_nan

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        anomaly.enabled, anomaly.check_nan = self._before
