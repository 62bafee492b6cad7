"""Tables of vectors that are looked up by index. The name is PyTorch's; gradients are dense here."""

from __future__ import annotations

from typing import Any, Self

from ..autograd import Tensor, no_grad
from . import functional as F
from . import init
from .module import Module
from .parameter import Parameter, new_parameter


class _Table(Module):
    """What ``Embedding`` and ``EmbeddingBag`` share: the table and what is done with its rows."""

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        weight: Tensor | None,
        freeze: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        if sparse:
            raise NotImplementedError(
                f"{type(self).__name__}: sparse gradients are not supported; leave sparse=False for a dense one"
            )
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise ValueError(
                f"Padding_idx must be within num_embeddings: {padding_idx} is not, of {num_embeddings} embeddings"
            )
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        if weight is None:
            self.weight = new_parameter((num_embeddings, embedding_dim), device, dtype)
            self.weight.requires_grad_(not freeze)
            self.reset_parameters()
        else:
            if tuple(weight.shape) != (num_embeddings, embedding_dim):
                raise ValueError(
                    f"Shape of weight does not match num_embeddings and embedding_dim: {list(weight.shape)} for "
                    f"{num_embeddings} and {embedding_dim}"
                )
            self.weight = Parameter(weight, requires_grad=not freeze)

    def reset_parameters(self) -> None:
        """Draws new values, normal with mean 0 and variance 1; zeros for the padding."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx].fill_(0)

    def _options(self) -> str:
        """The options of the rows that are not the usual ones, as ``extra_repr`` lists them."""
        shown = [
            ("max_norm", self.max_norm, None),
            ("norm_type", self.norm_type, 2),
            ("scale_grad_by_freq", self.scale_grad_by_freq, False),
        ]
        return "".join(f", {name}={value}" for name, value, usual in shown if value is not usual and value != usual)


class Embedding(_Table):
    """The rows of a table at given indices: (*) -> (*, embedding_dim).

    Args:
        num_embeddings: how many rows.
        embedding_dim: their length.
        padding_idx: this row starts as zeros and gets no gradient.
        max_norm: rows that are looked up and longer than this are first scaled down to it, in place.
        norm_type: of the norm.
        scale_grad_by_freq: divide the gradient of a row by how often it was looked up.
        sparse: PyTorch's sparse gradients, refused here.
        _weight: the table, instead of random values.
        _freeze: whether the table is not trained.
        device: "cpu".
        dtype: of the table, the default dtype without it.

    Raises:
        ValueError: ``padding_idx`` is no row, or the table has another shape.
        NotImplementedError: ``sparse``.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            _freeze,
            device,
            dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Int64 or int32 (*) -> (*, embedding_dim)."""
        return F.embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq)

    def extra_repr(self) -> str:
        """The arguments that are not the usual ones."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}{self._options()}"

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:
        """A layer around a table, (num_embeddings, embedding_dim), which is not trained unless ``freeze`` is False.

        Raises:
            ValueError: the table does not have two dimensions.
        """
        rows, columns = _check_pretrained(embeddings)
        return cls(
            rows,
            columns,
            padding_idx=padding_idx,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            sparse=sparse,
            _weight=embeddings,
            _freeze=freeze,
        )


class EmbeddingBag(_Table):
    """The sum, mean or maximum of rows of a table over bags of indices, without the rows in between in the result.

    Args:
        num_embeddings: how many rows.
        embedding_dim: their length.
        max_norm: rows that are looked up and longer than this are first scaled down to it, in place.
        norm_type: of the norm.
        scale_grad_by_freq: divide the gradient of a row by how often it was looked up.
        mode: "sum", "mean" or "max".
        sparse: PyTorch's sparse gradients, refused here.
        _weight: the table, instead of random values.
        include_last_offset: the offsets have one more entry, where the last bag ends.
        padding_idx: this index counts for nothing; its row starts as zeros and gets no gradient.
        device: "cpu".
        dtype: of the table, the default dtype without it.

    Raises:
        ValueError: ``padding_idx`` is no row, or the table has another shape.
        NotImplementedError: ``sparse``.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight,
            False,
            device,
            dtype,
        )
        self.mode = mode
        self.include_last_offset = include_last_offset

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        """(B, N), or (N,) with the beginnings (B,) of the bags -> (B, embedding_dim)."""
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    def extra_repr(self) -> str:
        """The arguments that are not the usual ones, and the mode."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        options = self._options()
        return f"{self.num_embeddings}, {self.embedding_dim}{options}, mode={self.mode!r}{padding}"

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> Self:
        """A layer around a table, (num_embeddings, embedding_dim), which is not trained unless ``freeze`` is False.

        Raises:
            ValueError: the table does not have two dimensions.
        """
        rows, columns = _check_pretrained(embeddings)
        layer = cls(
            rows,
            columns,
            max_norm=max_norm,
            norm_type=norm_type,
            scale_grad_by_freq=scale_grad_by_freq,
            mode=mode,
            sparse=sparse,
            _weight=embeddings,
            include_last_offset=include_last_offset,
            padding_idx=padding_idx,
        )
        layer.weight.requires_grad_(not freeze)
        return layer


def _check_pretrained(embeddings: Tensor) -> tuple[int, int]:
    """How many rows, and their length."""
    if embeddings.ndim != 2:
        raise ValueError(
            f"Embeddings parameter is expected to be 2-dimensional, but its shape is {list(embeddings.shape)}"
        )
    rows, columns = embeddings.shape
    return rows, columns
