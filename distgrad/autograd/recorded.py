"""What a recorded call of a primitive leaves in the graph: a node that keeps what the VJPs will ask for."""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .anomaly import anomaly
from .engine import AccumulateGrad, Gradient, Node, edge_of, run_backward
from .grad_mode import mode
from .tensor import Array, Tensor

if TYPE_CHECKING:
    from .primitive import Primitive

_ndarray = np.ndarray


class Fetch(enum.IntEnum):
    """What a plan saves."""

    OPERAND = 0
    SHAPE = 1
    DTYPE = 2
    OUTPUT = 3
    RESIDUAL = 4
    KEYWORD = 5
    STARRED = 6
    STARRED_SHAPES = 7


class Plan:
    """What a call saves, and what its node then does, when the operands of one bit mask require a gradient.

    Attributes:
        fetch: what to save, operands first: pairs of what it is and of a position or name.
        tensors: how many of the saved values are operands.
        vjps: for each gradient: the position of its operand, the operand's name, and what chooses the VJP's arguments
            from the saved values (None: it takes all, in order).
        arguments: the same choice as positions; ``~i`` stands for the number ``i`` itself.
        shapes: where operands broadcast: for each gradient, which of the saved values is the shape of its operand.
        frees: there is memory to free once the gradient has passed, not only shapes, dtypes and keywords.
    """

    __slots__ = ("arguments", "fetch", "frees", "shapes", "tensors", "vjps")

    def __init__(
        self,
        fetch: tuple[tuple[Fetch, Any], ...],
        tensors: int,
        vjps: tuple[tuple[int, str, Callable[[list[Any]], Sequence[Any]] | None], ...],
        arguments: tuple[tuple[int, ...], ...],
        shapes: tuple[int, ...],
        frees: bool,
    ) -> None:
        self.fetch = fetch
        self.tensors = tensors
        self.vjps = vjps
        self.arguments = arguments
        self.shapes = shapes
        self.frees = frees


def versions_of(saved: Sequence[Any], count: int) -> dict[int, int] | None:
    """The versions of those of the first ``count`` saved values that have one, by index.

    Raises:
        RuntimeError: one is an inference tensor.
    """
    versions: dict[int, int] | None = None
    for index in range(count):
        value = saved[index]
        if isinstance(value, Tensor) and value._counter is not None:
            if value._inference:
                raise RuntimeError(
                    "Inference tensors cannot be saved for backward: one of the operands was made inside "
                    "inference_mode(). Use no_grad() there, or clone() the tensor outside."
                )
            if versions is None:
                versions = {}
            versions[index] = value._counter[0]
    return versions


class Packed:
    """What a pack hook made of a saved tensor, and the hook that takes it back."""

    __slots__ = ("content", "edge", "unpack")

    def __init__(self, content: Any, unpack: Callable[[Any], Any], edge: tuple[Node, int] | None) -> None:
        self.content = content
        self.unpack = unpack
        self.edge = edge  # the history of the tensor that was packed

    def take_back(self) -> Tensor:
        """The values from the unpack hook, with the history of the tensor that was packed."""
        tensor = self.unpack(self.content)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                f"{type(tensor).__name__}"
            )
        if self.edge is None:
            return tensor
        node, number = self.edge
        out = Tensor(tensor._data)
        out._requires_grad = True
        if isinstance(node, AccumulateGrad):
            out._accumulator = weakref.ref(node)
        else:
            out._node, out._output_nr = node, number
        return out


def pack(tensor: Tensor, edge: tuple[Node, int] | None = None) -> Packed:
    """Hands a tensor that is to be saved, and its history, to the innermost hooks of ``saved_tensors_hooks``."""
    state = mode.state
    hooks = state.saved_hooks
    state.saved_hooks = ()  # what a hook itself computes is saved as it is
    try:
        return Packed(hooks[-1][0](tensor), hooks[-1][1], edge)
    finally:
        state.saved_hooks = hooks


def _counting(saved: Any) -> tuple[tuple[Any, list[int], int], ...]:
    """A saved output, which is an array alone as long as nobody counts its changes."""
    return ((saved, [0], 0),) if type(saved) is _ndarray else saved


class OperationNode(Node):
    """One recorded call of a primitive."""

    __slots__ = ("_keywords", "_plan", "_saved", "_versions", "primitive", "shape")

    primitive: Primitive
    shape: tuple[Any, ...]  # of the result, or of several a tuple of shapes
    _plan: Plan
    # As the plan's ``fetch`` says: a list, a tuple once it has gone through the hooks, None once it has been freed.
    _saved: list[Any] | tuple[Any, ...] | None
    _versions: dict[int, int] | None
    _keywords: dict[str, Any] | None

    def name(self) -> str:
        """The primitive's name and ``Backward0``, as PyTorch writes it."""
        return self.primitive.node_name

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the results."""
        return self.shape if self.primitive.multiple else (self.shape,)

    def release(self) -> None:
        """Drops the residuals; a second backward then raises. Where there are none it may pass again, as in PyTorch."""
        if self._plan.frees:
            self._saved = None

    def save_copy_of(self, tensor: Tensor) -> None:
        """Saves the present values of ``tensor``, which the result of this very operation is about to overwrite."""
        for index, value in enumerate((self._saved or ())[: self._plan.tensors]):
            if value is tensor and isinstance(self._saved, list):
                copy = Tensor(tensor._data.copy(order="K"))
                copy._node, copy._output_nr = tensor._node, tensor._output_nr
                copy._requires_grad = tensor._requires_grad
                self._saved[index] = copy
                if self._versions:
                    self._versions.pop(index, None)

    def counted(self, output: Tensor) -> None:
        """Where ``output`` was saved, notes the counter of its changes; until now it could not have any."""
        for index, (what, _) in enumerate(self._plan.fetch if isinstance(self._saved, list) else ()):
            if what == Fetch.OUTPUT and self._saved[index] is output._data:  # type: ignore[index]
                self._saved[index] = ((output._data, output._counter, 0),)  # type: ignore[index]

    def observe(self) -> None:
        """What anomaly mode notes of a node, and handing what is saved to the hooks of ``saved_tensors_hooks``."""
        if anomaly.enabled:
            self.metadata.update(anomaly.note())
        if mode.state.saved_hooks:
            self._pack()

    def _pack(self) -> None:
        saved = list(self._saved or ())
        for index, (what, _) in enumerate(self._plan.fetch):
            value = saved[index]
            if isinstance(value, Tensor):
                saved[index] = pack(value, edge_of(value) if value._requires_grad else None)
            elif what == Fetch.OUTPUT:
                saved[index] = tuple((pack(Tensor(array)), [0], 0) for array, _, _ in _counting(value))
            elif what == Fetch.RESIDUAL and isinstance(value, np.ndarray):
                saved[index] = pack(Tensor(value))
        self._saved = tuple(saved)

    def apply(self, gradient: Any, create_graph: bool) -> Sequence[Gradient | None]:
        """The VJPs of those operands that require a gradient."""
        primitive, plan = self.primitive, self._plan
        produced: list[Gradient | None] = [None] * len(self.next)
        if primitive.multiple and self.outputs == 1:
            gradient = (gradient,)
        if gradient is None or (primitive.multiple and all(part is None for part in gradient)):
            return produced
        kept = self._unpack(create_graph)
        if create_graph and primitive.decomposition is not None:
            return self._differentiate_decomposition(gradient, kept)
        for number, (position, operand, chosen) in enumerate(plan.vjps):
            try:
                value = primitive.vjps[operand](gradient, *(kept if chosen is None else chosen(kept)))
                shape = kept[plan.shapes[number]] if plan.shapes else None
                if shape is not None and value.shape != shape:
                    value = primitive.broadcast(value, shape)  # type: ignore[misc]
            except Exception as error:
                self.note(error, operand)
                raise
            if type(value) is not _ndarray and not create_graph and value is not None:
                value = np.asarray(value)  # what NumPy makes of 0-d operands
            produced[position] = value
        return produced

    def note(self, error: Exception, operand: str) -> None:
        """Tells an error in which VJP it was raised."""
        error.add_note(f"(in the backward pass of {self.primitive.name}, gradient of {operand!r})")

    def check_versions(self) -> None:
        """Raises RuntimeError where a saved operand has been changed since."""
        versions = self._versions or {}
        for index, value in enumerate((self._saved or ())[: self._plan.tensors]):
            if isinstance(value, Tensor) and value._version != versions.get(index, 0):
                self._unpack(False)  # which refuses

    def _unpack(self, create_graph: bool) -> list[Any]:
        """What was saved, as arrays or, with ``create_graph``, as Tensors."""
        saved = self._saved
        if saved is None:
            raise RuntimeError(
                "Trying to backward through the graph a second time (or directly access saved tensors after they have "
                "already been freed). Saved intermediate values of the graph are freed when you call .backward() or "
                f"autograd.grad(). Specify retain_graph=True if you need to backward a second time. ({self.name()})"
            )
        kept = list(saved)
        plan, versions = self._plan, self._versions
        for index in range(plan.tensors):
            value = kept[index]
            if isinstance(value, Tensor):
                counter = value._counter
                if counter is not None:
                    before = versions.get(index, 0) if versions else 0
                    if counter[0] != before:
                        self._refuse(f"operand {self._operand(index)!r}", value._data, before, counter[0])
                kept[index] = value if create_graph else value._data
            elif type(value) is Packed:
                tensor = value.take_back()
                kept[index] = tensor if create_graph else tensor._data
        for index in range(plan.tensors, len(kept)):
            value = kept[index]
            if type(value) is Packed:
                kept[index] = value.take_back()._data
            elif plan.fetch[index][0] == Fetch.OUTPUT:
                arrays = []
                for array, counter, version in _counting(value):
                    if counter[0] != version:
                        self._refuse("output", array, version, counter[0])
                    arrays.append(array.take_back()._data if type(array) is Packed else array)
                outputs: tuple[Any, ...] = self._outputs(arrays) if create_graph else tuple(arrays)
                kept[index] = outputs if self.primitive.multiple else outputs[0]
        if self.primitive.starred:
            kept.append(tuple(kept[: plan.tensors]))
        return kept

    def _operand(self, index: int) -> str:
        return self.primitive.starred or self.primitive.operands[self._plan.fetch[index][1]]

    def _outputs(self, arrays: list[Array]) -> tuple[Tensor, ...]:
        outputs = tuple(Tensor(array) for array in arrays)
        for number, output in enumerate(outputs):
            output._node, output._output_nr, output._requires_grad = self, number, True
        return outputs

    def _refuse(self, what: str, array: Array, saved: int, now: int) -> None:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{self.primitive.name} saved its {what} ({array.dtype} {list(array.shape)}) at version {saved}; it is "
            f"at version {now} now. Use the out-of-place form of the operation that changed it, or give that "
            "operation a clone()."
        )

    def _differentiate_decomposition(self, gradient: Tensor, kept: list[Any]) -> list[Gradient | None]:
        primitive = self.primitive
        from .primitive import alias

        assert primitive.decomposition is not None and self._keywords is not None
        # Aliases: the walk must end here, not in the history of the operands, yet its result must lead there.
        values = kept[: self._plan.tensors]
        aliases = [alias(value) if isinstance(value, Tensor) else value for value in values]
        output = primitive.decomposition(*aliases, **self._keywords)
        wanted = [edge_of(aliases[position]) for position, edge in enumerate(self.edges) if edge is not None]
        found = iter(run_backward([edge_of(output)], [gradient], retain_graph=True, create_graph=True, targets=wanted))
        return [None if edge is None else next(found) for edge in self.edges]
