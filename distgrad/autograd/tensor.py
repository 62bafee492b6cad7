"""``Tensor``: a NumPy array that remembers how it was made.

The arithmetic is not here. ``distgrad.ops.methods`` puts operators and methods on the class, so that the engine never
imports an op; the names it adds are declared at the end of the class for the type checker.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .grad_mode import mode
from .printing import format_tensor
from .sharing import join

if TYPE_CHECKING:
    from .engine import Node
    from .view import View

Array = NDArray[Any]
Hook = Callable[["Tensor"], "Tensor | None"]


class Size(tuple[int, ...]):
    """The shape of a tensor: a tuple that prints and counts as PyTorch's ``torch.Size``."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements."""
        return int(np.prod(self, dtype=np.int64))

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"


_handle_keys = itertools.count()


class Handle:
    """Removes a hook: what every ``register_*hook`` returns."""

    def __init__(self, hooks: dict[int, Any]) -> None:
        self._hooks = hooks
        self._key = next(_handle_keys)

    @classmethod
    def add(cls, hooks: dict[int, Any], hook: Any) -> Handle:
        """Enters ``hook`` into ``hooks``, which are called in the order of registration."""
        handle = cls(hooks)
        hooks[handle._key] = hook
        return handle

    def remove(self) -> None:
        """Takes the hook out; doing so twice is harmless."""
        self._hooks.pop(self._key, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *unused: object) -> None:
        self.remove()


def _backward(*arguments: Any) -> None:
    """``derivatives.backward``, which puts itself here: it is above this module."""
    raise NotImplementedError


class _Slots:
    """What every result of an operation has, in slots: to make one then costs half of what a dictionary would."""

    __slots__ = ("_counter", "_data", "_node", "_output_nr", "_requires_grad", "_view")

    _data: Array
    _requires_grad: bool
    _node: Node | None  # the operation that made this tensor; None for a leaf
    _output_nr: int  # which of that operation's outputs
    _counter: list[int] | None  # in-place changes so far, one list shared by all views of the memory
    _view: View | None  # of a view: whose memory this is, and how to get from there to here


class Tensor(_Slots):
    """A multi-dimensional array that records the operations on it, with the meaning of ``torch.Tensor``.

    Args:
        data: an ``ndarray``, whose memory is shared, or what ``np.asarray`` takes, converted to float32 as
            ``torch.Tensor`` does. ``distgrad.tensor`` is the constructor that infers the dtype and copies.
        requires_grad: whether ``backward`` should put a gradient into ``grad``.

    Raises:
        RuntimeError: ``requires_grad`` with a dtype that is not floating point.
    """

    # What few tensors need: the default lives on the class and costs nothing per instance.
    _grad: Tensor | None = None
    _grad_slot: Array | None = None  # of a leaf: the memory in which a gradient that it has none of yet is to lie
    _taker: Callable[[Array], bool] | None = None  # of a leaf: may take a gradient, which ``grad`` then doesn't get
    _accumulator: weakref.ref[Node] | None = None
    _hooks: dict[int, Hook] | None = None  # of a leaf; a non-leaf's hooks live on its node
    _post_accumulate_hooks: dict[int, Callable[[Tensor], None]] | None = None
    _retains_grad: bool = False
    _inference: bool = False
    _inherited: bool = False  # requires_grad is its base's: a view that was made without recording
    _reshaped: bool = False  # a view of what it was before its own shape was changed: see ``ops.metadata``
    _group: list[weakref.ref[Tensor]] | None = None  # all that share this memory, where it is in HWNC order
    _batched: bool = False  # one sample of many, inside vmap: see ``func.batched``

    # ndarray (+) Tensor must end in Tensor.__radd__ rather than in an object array.
    __array_ufunc__ = None

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        if not isinstance(data, np.ndarray):
            # NumPy's arithmetic on 0-d arrays gives scalars, which have a dtype of their own; Python's numbers do not.
            data = np.array(data, dtype=None if isinstance(data, np.generic) else np.float32)
        self._data = data
        self._requires_grad = False
        self._node = self._counter = self._view = None
        self._output_nr = 0
        if mode.state.inference:
            self._inference = True
            self._counter = [1]  # so that whoever looks for changes finds that it is one
        if requires_grad:
            self.requires_grad = True

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        """The length of each dimension."""
        return Size(self._data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements, a NumPy dtype (``distgrad.float32`` is ``numpy.dtype("float32")``)."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of dimension ``dim``."""
        return self.shape if dim is None else self._data.shape[dim]

    def dim(self) -> int:
        """The number of dimensions."""
        return self._data.ndim

    def numel(self) -> int:
        """The number of elements."""
        return self._data.size

    nelement = numel
    ndimension = dim

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return self._data.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self._data.size * self._data.itemsize

    def is_inference(self) -> bool:
        """Whether it was made inside ``inference_mode``."""
        return self._inference

    def element_size(self) -> int:
        """Bytes an element."""
        return self._data.itemsize

    def stride(self, dim: int | None = None) -> Any:
        """Elements (not bytes) between neighbours along each dimension, or along ``dim``."""
        strides = tuple(s // self._data.itemsize for s in self._data.strides)
        return strides if dim is None else strides[dim]

    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return bool(self._data.flags.c_contiguous)

    def is_floating_point(self) -> bool:
        """Whether the dtype is a floating-point one; only such tensors can require a gradient."""
        return self._data.dtype.kind == "f"

    def data_ptr(self) -> int:
        """The address of the first element; equal for two tensors that begin in the same memory."""
        return int(self._data.ctypes.data)

    # Leaving the graph -----------------------------------------------------------------------------------------------

    def numpy(self) -> Array:
        """The array itself (memory shared).

        Raises:
            RuntimeError: the tensor requires a gradient; call ``detach().numpy()``.
        """
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return self._data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy:
            return np.array(self.numpy(), dtype=dtype)
        return np.asarray(self.numpy(), dtype=dtype)

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self._data.size != 1:
            raise RuntimeError(f"a Tensor with {self._data.size} elements cannot be converted to Scalar")
        return self._data.item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._data.tolist()

    def detach(self) -> Tensor:
        """The same memory without history; it never requires a gradient."""
        out = Tensor(self._data)
        out._counter = self._versions()  # a change in place through it must still be noticed by backward
        join(self, out)
        return out

    def detach_(self) -> Tensor:
        """Takes the history from the tensor itself: it is a leaf then, which requires no gradient."""
        if self._is_view():
            raise RuntimeError(
                "Can't detach views in-place: their history is that of their base. Use detach() instead, which gives a "
                "tensor of its own in the same memory."
            )
        for tensor in (self,) if self._view is None else (self, self._view.base):
            tensor._node, tensor._output_nr, tensor._requires_grad, tensor._retains_grad = None, 0, False, False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history and, unlike ``detach``, with a version of its own: changes go unnoticed."""
        out = Tensor(self._data)
        join(self, out)
        return out

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        self._data = value._data

    # Its place in the graph ------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted: set by the user on a leaf, inherited by everything computed from it."""
        view = self._view
        if view is None:
            return self._requires_grad
        return view.base._requires_grad or (self._requires_grad and not self._inherited)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._up_to_date()
        if self._node is not None:
            if value:
                return
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
                "a subgraph that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if value and self._data.dtype.kind != "f":
            raise RuntimeError(f"only Tensors of floating point dtype can require gradients, this one is {self.dtype}")
        if value and self._inference and not mode.inference:
            raise RuntimeError(
                "an inference tensor cannot require gradients: it was made inside inference_mode(); clone() it outside"
            )
        self._requires_grad = bool(value)
        if self._inherited:
            self._inherited, self._accumulator = False, None  # from here on it is a leaf with a gradient of its own

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Sets ``requires_grad`` in place and returns the tensor."""
        self.requires_grad = requires_grad
        return self

    @property
    def grad_fn(self) -> Node | None:
        """The recorded operation that made this tensor, or None for a leaf."""
        self._up_to_date()
        return self._node

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        self._up_to_date()
        return self._node is None

    @property
    def output_nr(self) -> int:
        """Which output of ``grad_fn`` this tensor is."""
        return self._output_nr

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, a tensor of the same shape, or None before the first ``backward``."""
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"assigned grad expected to be a Tensor or None but got {type(value).__name__}")
            if value._data.shape != self._data.shape:
                raise RuntimeError(
                    f"assigned grad has data of a different size: the tensor is {list(self.shape)}, the gradient "
                    f"{list(value.shape)}"
                )
            if value._data.dtype != self._data.dtype:
                raise RuntimeError(
                    f"assigned grad has data of a different type: the tensor is {self.dtype}, the gradient "
                    f"{value.dtype}"
                )
        self._grad = value

    @property
    def _version(self) -> int:
        """How often the memory has been changed in place."""
        return 0 if self._counter is None else self._counter[0]

    def _versions(self) -> list[int]:
        """The counter itself, to be shared with a view."""
        if self._counter is None:
            self._counter = [0]
            if self._node is not None:
                self._node.counted(self)
        return self._counter

    def _changed(self) -> None:
        """Notes one change in place, so that a backward that saved the old values can tell."""
        self._versions()[0] += 1

    def _up_to_date(self) -> None:
        """Gives a view whose base has been changed in place the history that it has since."""
        view = self._view
        if view is not None:
            if view.version != self._counter[0]:  # type: ignore[index]
                view.refresh(self)
            if view.base._requires_grad is not self._requires_grad:
                view.inherit(self)

    @property
    def _base(self) -> Tensor | None:
        """Of a view: the tensor whose memory it shares."""
        return self._view.base if self._view is not None and self._is_view() else None

    def _is_view(self) -> bool:
        """Whether the memory is that of another tensor, changes of which reach this one and its history."""
        return self._view is not None and not self._reshaped

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | Tensor | None = None,
    ) -> None:
        """Adds the gradient of this tensor with respect to the leaves to their ``grad``.

        Args:
            gradient: same shape as this tensor: what to multiply the Jacobian with; may be left out for one element.
            retain_graph: keep what the graph saved, so that it can be walked again (default: ``create_graph``).
            create_graph: record the backward pass itself, for higher derivatives.
            inputs: accumulate into these tensors only.
        """
        _backward(self, gradient, retain_graph, create_graph, inputs)

    def register_hook(self, hook: Hook) -> Handle:
        """Calls ``hook(grad)`` when the gradient of this tensor is known; a tensor it returns replaces the gradient.

        Raises:
            RuntimeError: the tensor does not require a gradient.
        """
        self._up_to_date()
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self._node is not None:
            return Handle.add(self._node.tensor_hooks_of(self._output_nr), hook)
        if self._hooks is None:
            self._hooks = {}
        return Handle.add(self._hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Handle:
        """Calls ``hook(tensor)`` each time a backward has added its final gradient to ``grad``. Leaves only."""
        self._up_to_date()
        if self._node is not None or not self._requires_grad:
            raise RuntimeError("post accumulate grad hooks cannot be registered on non-leaf tensors")
        if self._post_accumulate_hooks is None:
            self._post_accumulate_hooks = {}
        return Handle.add(self._post_accumulate_hooks, hook)

    def retain_grad(self) -> None:
        """Keeps the gradient of this non-leaf in ``grad`` as if it were a leaf."""
        self._up_to_date()
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self._node is None or self._retains_grad:
            return
        self._retains_grad = True
        reference = weakref.ref(self)  # the node must not keep its output alive

        def keep(grad: Tensor) -> None:
            tensor = reference()
            if tensor is not None:
                tensor._grad = grad if tensor._grad is None else tensor._grad + grad

        self._node.retain(self._output_nr, keep)

    @property
    def retains_grad(self) -> bool:
        """Whether ``retain_grad`` was called on this non-leaf."""
        return self._retains_grad

    # Python's own protocols ------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return format_tensor(self)

    def __len__(self) -> int:
        if self._data.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return len(self._data)

    def __bool__(self) -> bool:
        if self._data.size != 1:
            what = "no values" if self._data.size == 0 else "more than one value"
            raise RuntimeError(f"Boolean value of Tensor with {what} is ambiguous")
        return bool(self._data)

    def __float__(self) -> float:
        return float(self._number())

    def __int__(self) -> int:
        return int(self._number())

    def _number(self) -> Any:
        if self._data.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self._data.item()

    def __index__(self) -> int:
        if self._data.dtype.kind not in "iub" or self._data.size != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._data.item())

    def __hash__(self) -> int:
        return id(self)  # identity, as in PyTorch: == compares elements

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if self._data.ndim == 0 else object.__format__(self, spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if self._node is not None:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment; detach() it first"
            )
        out = type(self)(self._data.copy())
        out._requires_grad = self._requires_grad
        out._grad = None if self._grad is None else Tensor(self._grad._data.copy())
        memo[id(self)] = out
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Values and whether they require a gradient; gradients, hooks and history stay behind, as in PyTorch."""
        return type(self), (np.ascontiguousarray(self._data).reshape(self._data.shape), self._requires_grad)

    if TYPE_CHECKING:  # put here by distgrad.ops.methods

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __iter__(self) -> Iterator[Tensor]: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __abs__(self) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...


_new, _ndarray = object.__new__, np.ndarray


def plain(data: Any) -> Tensor:
    """A result without history: what ``Tensor(data)`` does, at half its cost; a NumPy scalar is a 0-d array."""
    out: Tensor = _new(Tensor)
    out._data = data if type(data) is _ndarray else np.asarray(data)
    out._requires_grad = False
    out._node = out._counter = out._view = None
    out._output_nr = 0
    return out
