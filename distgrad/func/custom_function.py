"""A user's ``autograd.Function`` inside vmap, by its own ``vmap`` or by one made from its forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import ops
from ..autograd import Function, Tensor
from .pytree import broadcast_prefix, flatten, unflatten
from .vmap import vmap


class VmapInfo(NamedTuple):
    """What a ``vmap`` static method is told first.

    Attributes:
        batch_size: how many samples.
        randomness: as of ``vmap``.
    """

    batch_size: int
    randomness: str


def applied(
    cls: type[Function], args: tuple[Any, ...], kwargs: dict[str, Any], flags: tuple[bool, ...], info: VmapInfo
) -> tuple[list[Any], Any]:
    """``cls.apply`` of arguments with the batch in front where flagged: results likewise, flat, and their structure."""
    in_dims = tuple(0 if flag else None for flag in flags)
    if cls.generate_vmap_rule:
        if "vmap" in vars(cls):
            raise RuntimeError(
                f"You tried to vmap over {cls.__name__}, but it has both generate_vmap_rule=True and an overriden vmap "
                "staticmethod. Please set generate_vmap_rule=False or delete the overriden vmap staticmethod to avoid "
                "ambiguity."
            )
        result: Any = _generated(cls, in_dims, info).apply(*args, **kwargs)
        out_dims: Any = 0
    elif cls.vmap is not Function.vmap:
        found = cls.vmap(info, in_dims, *args, **kwargs)
        if not isinstance(found, tuple) or len(found) != 2:
            raise RuntimeError(
                f"Expected the vmap staticmethod to have two returns, an output and out_dims with pytree structure "
                f"compatible with the output: {cls.__name__}.vmap"
            )
        result, out_dims = found
    else:
        raise RuntimeError(
            f"You tried to vmap over {cls.__name__}, but it does not have vmap support. Please override and implement "
            "the vmap staticmethod or set generate_vmap_rule=True."
        )
    leaves, structure = flatten(result)
    places = broadcast_prefix(out_dims, result, f"{cls.__name__}.vmap: out_dims")
    values = []
    for leaf, place in zip(leaves, places, strict=True):
        if isinstance(leaf, Tensor):
            batched = place is not None
            leaf = (
                ops.movedim(leaf, place, 0) if batched else ops.unsqueeze(leaf, 0).expand(info.batch_size, *leaf.shape)
            )
        values.append(leaf)
    return values, structure


class _Context:
    """The ``ctx`` of one sample: what the user's ``setup_context`` and ``backward`` see."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self.saved_tensors: tuple[Any, ...] = ()
        self.plain: tuple[Tensor, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keeps tensors (or None) for ``saved_tensors``."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Says which outputs have no gradient."""
        self.plain = args

    def set_materialize_grads(self, value: bool) -> None:
        """Gradients are always there: zeros for an output that none has reached."""

    def mark_dirty(self, *args: Tensor) -> None:
        """Refused: the memory belongs to all samples."""
        raise RuntimeError("mark_dirty inside vmap: a generated vmap rule has no in-place form")


def _generated(cls: type[Function], in_dims: tuple[int | None, ...], info: VmapInfo) -> type[Function]:
    """The function of all samples at once, whose forward and backward are those of ``cls`` inside vmap."""
    if cls.setup_context is Function.setup_context:
        raise RuntimeError(
            "In order to use an autograd.Function with functorch transforms (vmap, grad, jvp, jacrev, ...), it must "
            "override the setup_context staticmethod."
        )

    class Generated(Function):
        generate_vmap_rule = True  # for an outer vmap

        @staticmethod
        def forward(*args: Any) -> Any:
            return vmap(cls.forward, in_dims, randomness=info.randomness)(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            outputs, structure = flatten(output)
            ctx.inner = inner = _Context(ctx.needs_input_grad)
            plain: list[bool] = []
            places: list[tuple[int, int]] = []  # where each saved tensor comes from

            def run(inputs: tuple[Any, ...], outputs: list[Tensor]) -> list[Tensor]:
                cls.setup_context(inner, inputs, unflatten(outputs, structure))  # type: ignore[arg-type]
                plain.extend(any(out is x for x in inner.plain) for out in outputs)
                others: list[Tensor] = []
                for x in inner.saved_tensors:
                    known = [(k, n) for k, group in enumerate((inputs, outputs)) for n, y in enumerate(group) if y is x]
                    places.append(known[0] if known else (2, len(others)))
                    others += [] if known or x is None else [x]
                return others

            others = vmap(run, (in_dims, 0), randomness=info.randomness)(inputs, outputs)
            inner.saved_tensors = inner.plain = ()
            groups: Any = (inputs, outputs, [*others, None])
            # the very tensors, so that a second derivative finds their history
            ctx.save_for_backward(*(groups[group][number] for group, number in places))
            ctx.dims = tuple(in_dims[number] if group == 0 else 0 for group, number in places)
            ctx.mark_non_differentiable(*(out for out, is_plain in zip(outputs, plain, strict=True) if is_plain))

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            present: list[bool] = []

            def run(saved: tuple[Any, ...], *gradients: Any) -> Any:
                ctx.inner.saved_tensors = saved
                returned = cls.backward(ctx.inner, *gradients)
                returned = returned if isinstance(returned, tuple) else (returned,)
                present.extend(x is not None for x in returned)
                return [x for x in returned if x is not None]

            saved = tuple(ctx.saved_tensors)
            dims = tuple(None if x is None else dim for x, dim in zip(saved, ctx.dims, strict=True))
            all_dims = (dims, *(0 for _ in gradients))
            found = iter(vmap(run, all_dims, randomness=info.randomness)(saved, *gradients))
            ctx.inner.saved_tensors = ()
            returned = []
            for is_present, dim in zip(present, in_dims, strict=True):
                gradient = next(found) if is_present else None
                # what all samples share gets the gradients of all
                returned.append(gradient.sum(0) if gradient is not None and dim is None else gradient)
            return tuple(returned)

    Generated.__name__ = cls.__name__
    return Generated
