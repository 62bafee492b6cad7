"""Named results: tuples whose parts also have names, printed as PyTorch prints them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, ClassVar

from ..autograd import Tensor


class Named(tuple[Tensor, ...]):
    """A tuple of tensors with names; made from one sequence, as PyTorch's."""

    __slots__ = ()
    _fields: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        parts = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"torch.return_types.{type(self).__name__}(\n{parts})"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor: ...


def named(function: str, *names: str) -> type[Named]:
    """The type of what ``function`` returns, whose parts are ``names`` in this order."""
    parts = {name: property(operator.itemgetter(i), doc=f"Part {i}.") for i, name in enumerate(names)}
    about = {"__module__": __name__, "__doc__": f"What ``{function}`` returns."}
    return type(function, (Named,), {"__slots__": (), "_fields": names, **about, **parts})


max = named("max", "values", "indices")
min = named("min", "values", "indices")
aminmax = named("aminmax", "min", "max")
median = named("median", "values", "indices")
nanmedian = named("nanmedian", "values", "indices")
mode = named("mode", "values", "indices")
kthvalue = named("kthvalue", "values", "indices")
sort = named("sort", "values", "indices")
topk = named("topk", "values", "indices")
cummax = named("cummax", "values", "indices")
cummin = named("cummin", "values", "indices")
